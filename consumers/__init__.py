"""What leaves the topics: feeds into torch loops, the trainers that use them, and replays into files.

`replay` and what it stands on run without torch; everything below `feed` needs the extra `train`.
"""
