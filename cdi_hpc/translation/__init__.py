"""From merged edits to a plan: tables of what hooks and files mean, the rules, and a plan in words."""
