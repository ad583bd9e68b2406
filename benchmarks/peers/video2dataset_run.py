"""Download a list of addresses with video2dataset, in the environment that has it: URLS OUT SHARD_SIZE."""

import sys

from video2dataset import video2dataset

if __name__ == "__main__":
    urls, out, shard_size = sys.argv[1:]
    yt_args = {"download_size": 360, "download_audio_rate": 44100, "yt_metadata_args": None}
    video2dataset(
        urls,
        out,
        output_format="webdataset",
        input_format="csv",
        url_col="url",
        encode_formats={"video": "mp4"},
        config={
            "subsampling": {},
            "reading": {"yt_args": yt_args, "timeout": 8, "sampler": None},
            "storage": {
                "number_sample_per_shard": int(shard_size),
                "oom_shard_count": 5,
                "captions_are_subtitles": False,
            },
            "distribution": {
                "processes_count": 2,
                "thread_count": 8,
                "subjob_size": 1000,
                "distributor": "multiprocessing",
            },
        },
    )
