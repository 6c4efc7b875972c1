"""The pictures that a scenario streams: photographs, or the frames of its video."""

from __future__ import annotations

from sim.errors import UserError
from sim.media.capture import Camera, FrameSource, Photographs, Video, video_path
from sim.media.images import LoadedImage, image_paths, image_size, load_images
from sim.scenario.loader import LoadedScenario


def open_pictures(loaded: LoadedScenario, frames: int | None = None) -> FrameSource:
    """The pictures of a scenario, each taken when it is asked for.

    Args:
        loaded: the scenario.
        frames: how many, >= 1, instead of what the scenario says; photographs start over when
            they run out.

    Raises:
        UserError: nothing there, or PyAV is missing.
    """
    scenario, base = loaded.scenario, loaded.images_base
    video = scenario.video
    if video is None:
        return Photographs(load_images(scenario.images, base), frames)
    count = frames or video.frames
    if video.file is None:
        return Camera(video.camera or 0, video.size, count)
    path = video_path(video.file, base)
    return Video(path, scenario.stream.fps, video.size, video.first, count)


def load_pictures(loaded: LoadedScenario) -> list[LoadedImage]:
    """All pictures of a scenario; raises UserError as `open_pictures`, and for a camera."""
    video = loaded.scenario.video
    if video is not None and video.file is None:
        raise UserError(
            "video.camera: what a camera sees is not there a second time; stream it with sim demo, "
            "sim send or sim page, or give video.file"
        )
    return list(open_pictures(loaded).pictures())


def picture_sizes(loaded: LoadedScenario) -> list[tuple[int, int]]:
    """(width, height) of all pictures, which are not decoded; raises UserError as
    `load_pictures`."""
    scenario = loaded.scenario
    if scenario.video is None:
        return [image_size(path) for path in image_paths(scenario.images, loaded.images_base)]
    return [] if scenario.video.file is None else open_pictures(loaded).sizes


def refuse_video(loaded: LoadedScenario, command: str) -> None:
    """Raise UserError if a command that takes photographs alone is given a video."""
    if loaded.scenario.video is not None:
        raise UserError(f"video: {command} takes images alone; sim run and sim page take videos")
