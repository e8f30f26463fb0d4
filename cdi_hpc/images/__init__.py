"""An image's own files, read where they are: in a directory, a SquashFS or a SIF file."""
