"""Short online videos in, aligned video-infrared-depth-audio-language data sets out."""

__version__ = "0.1.0"
