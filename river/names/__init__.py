"""Modules by the names they had in 2006; the commands put this folder on the path of the scripts that they run."""
