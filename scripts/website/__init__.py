"""The site that ``scripts/docs`` makes of docs/, and the tables and pictures in docs/ that are made of the code."""
