"""`make bench`: how fast, how frugal, how flat; each figure beside its goal."""
