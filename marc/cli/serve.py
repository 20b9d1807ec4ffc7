"""``marc serve``: a server that clients of OpenAI's interface know how to ask."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from marc.cli.options import Budget, Given, command
from marc.cli.setting import Changes, Setting
from marc.cli.verbosity import remark
from marc.extras import extra
from marc.memory.options import FirstAnswerOptions, MemoryOptions, RetrievalOptions
from marc.serving.options import ServeOptions
from marc.types import GenerationOptions, ModelOptions
from marc.video.options import FrameOptions, SubtitleOptions

KEY = "MARC_API_KEY"


@command("serve")
def serve(
    *,
    allow_path: Annotated[
        list[Path] | None,
        typer.Option(help="A folder below which clients may name files by their paths; repeat it."),
    ] = None,
    allow_domain: Annotated[
        list[str] | None,
        typer.Option(help="A host from which files may be fetched that clients name by https addresses; repeat it."),
    ] = None,
    prompt_style: Annotated[
        str | None, typer.Option(help="short, plain, video-r1 or video-r1-train.", show_default="the model's")
    ] = None,
    no_memory: Annotated[bool, typer.Option("--no-memory", help="Sample the whole video evenly.")] = False,
    budget: Budget = None,
    serving: ServeOptions,
    model: ModelOptions,
    compression: Changes,
    frames: FrameOptions,
    subtitles: SubtitleOptions,
    memory: MemoryOptions,
    retrieval: RetrievalOptions,
    first: FirstAnswerOptions,
    generation: GenerationOptions,
    given: Given,
) -> None:
    """Answer questions of many clients, as OpenAI's chat completions do; a key in MARC_API_KEY is asked for."""
    setting = Setting.of(
        given,
        model=model,
        compression=compression,
        budget=budget,
        frames=frames,
        subtitles=subtitles,
        memory=None if no_memory else memory,
        retrieval=retrieval,
        generation=generation,
        prompt_style=prompt_style,
        first=first,
    )
    given.refuse_beside("--backend vllm, which keeps features itself", model.backend == "vllm", "keep_features")
    for folder in allow_path or []:
        if not folder.is_dir():
            raise ValueError(f"--allow-path {folder}: there is no such folder")
    if serving.library is not None and not serving.page:
        raise ValueError(f"--library {serving.library}: it is the page that searches it; give --page, too")
    _serve(setting, serving, tuple(allow_path or ()), tuple(allow_domain or ()))


def _serve(setting: Setting, serving: ServeOptions, folders: tuple[Path, ...], domains: tuple[str, ...]) -> None:
    """Loads the model and answers until the process is told to end."""
    with extra("serve"):
        from marc.serving.app import make_app
        from marc.serving.listening import address_of, run_server, take_port
        from marc.serving.origins import is_local
        from marc.serving.page import add_page
    sockets = take_port(serving.host, serving.port)
    key, address = os.environ.get(KEY) or None, address_of(serving.host, sockets)
    if key is None and not is_local(serving.host):
        remark(f"marc serve: whoever reaches {address} may ask and send files; set {KEY} to ask for a key")
    assistant = setting.load()
    assistant.warm_up()
    app = make_app(assistant, serving, allowed=folders, key=key, domains=domains)
    if serving.page:
        add_page(app)
    what = "the page is" if serving.page else "ready"
    run_server(app, serving.host, sockets, lambda: remark(f"marc serve: {what} at {address}"))
