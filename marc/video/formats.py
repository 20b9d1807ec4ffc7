"""What is meant to be read: containers and codecs by FFmpeg's names; FFmpeg opens nothing else for this project.

FFmpeg knows hundreds of formats. Some are lists that name other files, such as playlists; some take any text for a
video of characters; many are of games and nobody's holiday. None of the formats here refers to another file, or is
told not to follow that (`enable_drefs` of MP4 and QuickTime).
"""

from __future__ import annotations

from av.codec import codecs_available

CONTAINERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "rm", "mxf", "gxf", "nut", "wtv", "ivf", "dv"),
    *("yuv4mpegpipe", "dhav", "swf", "h261", "h263", "h264", "hevc", "vvc", "av1", "obu", "m4v", "mpegvideo"),
    *("mjpeg", "mjpeg_2000", "vc1", "vc1test", "cavsvideo", "avs2", "avs3", "dirac", "dnxhd", "apv"),
)
"""Of videos, and streams without a container."""

PICTURES = (
    *("gif", "apng", "webp_pipe", "png_pipe", "jpeg_pipe", "bmp_pipe", "tiff_pipe"),
    *("ppm_pipe", "pgm_pipe", "pbm_pipe", "pam_pipe"),
)
"""Of pictures, which may move."""

SOUNDS = ("mp3", "aac", "ac3", "eac3", "flac", "wav", "aiff", "caf", "amr")
"""Are opened too, so that what is wrong with them can be said: there is no video in them."""

VIDEO_CODECS = (
    *("h261", "h263", "h263i", "h263p", "h264", "hevc", "vvc", "av1", "libdav1d", "apv"),
    *("mpeg1video", "mpeg2video", "mpegvideo", "mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "dvvideo"),
    *("wmv1", "wmv2", "wmv3", "vc1", "vc1image", "wmv3image", "mss1", "mss2", "mts2"),
    *("vp3", "vp4", "vp5", "vp6", "vp6a", "vp6f", "vp7", "vp8", "libvpx", "vp9", "libvpx-vp9", "theora", "dirac"),
    *("flv", "flashsv", "flashsv2", "svq1", "svq3", "qtrle", "rpza", "smc", "cinepak", "8bps"),
    *(
        "indeo2",
        "indeo3",
        "indeo4",
        "indeo5",
        "msvideo1",
        "msrle",
        "mszh",
        "zlib",
        "camtasia",
        "tscc2",
        "zmbv",
        "camstudio",
    ),
    *("rv10", "rv20", "rv30", "rv40", "rv60", "cavs", "avs"),
    *("mjpeg", "mjpegb", "jpegls", "jpeg2000", "sp5x", "asv1", "asv2"),
    *("prores", "prores_raw", "dnxhd", "cfhd", "hap", "notchlc", "speedhq", "pixlet", "cllc", "snow"),
    *("ffv1", "huffyuv", "ffvhuff", "hymt", "utvideo", "magicyuv", "lagarith", "loco", "vble", "fraps", "dxtory"),
    *("rawvideo", "wrapped_avframe", "v210", "v210x", "v308", "v408", "v410", "r10k", "r210", "avrp", "avui", "y41p"),
    *("yuv4", "cyuv", "cljr", "012v", "bitpacked", "png", "apng", "gif", "webp", "bmp", "tiff"),
    *("ppm", "pgm", "pbm", "pam", "pgmyuv"),
)

SUBTITLE_CODECS = (
    *("subrip", "srt", "ass", "ssa", "mov_text", "webvtt", "text", "cc_dec"),
    *("dvdsub", "dvbsub", "pgssub", "xsub"),
)

SOUND_CODECS = (
    *("aac", "aac_fixed", "aac_latm", "ac3", "ac3_fixed", "eac3", "dca", "truehd", "mlp"),
    *("mp1", "mp1float", "mp2", "mp2float", "mp3", "mp3float", "opus", "libopus", "vorbis"),
    *("flac", "alac", "ape", "tta", "wavpack", "wmav1", "wmav2", "wmapro", "wmalossless", "wmavoice"),
    *("cook", "sipr", "real_144", "real_288", "ralf", "atrac3", "atrac3plus", "qdm2", "qdmc", "nellymoser"),
    *("speex", "gsm", "gsm_ms", "amrnb", "amrwb", "libopencore_amrnb", "libopencore_amrwb", "s302m"),
    *sorted(name for name in codecs_available if name.startswith(("pcm_", "adpcm_"))),
)
"""FFmpeg looks into the sound of a file when it opens it."""

LISTS = ("hls", "concat", "concatf", "dash", "webm_dash_manifest", "imf", "sdp", "rtsp", "vobsub", "xspf")
"""Formats that only name other files."""

BY_NAME = "image2"
"""What FFmpeg takes a file for whose name is a picture's and whose content is none of the above."""

TEXTS = ("tty", "bin", "xbin", "adf", "idf", "ansi")
"""Formats of characters that would be drawn."""

SUBTITLE_FILES = "srt,webvtt,ass"

OPTIONS = {
    "format_whitelist": ",".join((*CONTAINERS, *PICTURES, *SOUNDS)),
    "codec_whitelist": ",".join((*VIDEO_CODECS, *SUBTITLE_CODECS, *SOUND_CODECS)),
    "protocol_whitelist": "file",
    "enable_drefs": "0",
}
"""FFmpeg's options with which every file is opened."""

TEXT_OPTIONS = {**OPTIONS, "format_whitelist": SUBTITLE_FILES}
"""Those for the text of a file of subtitles."""


def refusal(name: str) -> str:
    """Why a format is not read, and what to do.

    Args:
        name: FFmpeg's for it.
    """
    if name == BY_NAME:
        return "its name is a picture's; if it is one, save it as PNG or JPEG, and if it is a video, name it so"
    if name in LISTS:
        return f"it only names other files (format {name}), which are not followed; give the video itself"
    if name in TEXTS:
        return f"it is text (format {name}), not a video; give a file with moving pictures"
    return f"the format {name} is not among those that are read; convert it to MP4 or MKV, if it is a video"
