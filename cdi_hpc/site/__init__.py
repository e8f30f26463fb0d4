"""What a site lays down: rules and their patterns, short names of devices, and who was given what."""
