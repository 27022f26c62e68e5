"""Behind ``tools/predict.py``."""

import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ..errors import UserError
from ..predict.predictor import Predictor, describe
from ..utils.files import check_writable
from ..weights.publish import is_weights_name
from .models import EXPORTED, load_predictor
from .results import CocoFile, Folder
from .sources import PICTURES, VIDEOS, Source, Unreadable, count_frames, find_sources, read

MOST_LINES = 20  # of results on the console


def predict(
    model: str,
    inputs: Sequence[str],
    out: str | None = None,
    json: str | None = None,
    score_thr: float = 0.3,
    device: str | None = None,
) -> int:
    """Run a model on pictures and videos; the arguments are the flags of ``tools/predict.py``.

    Args:
        model: As :func:`.load_predictor` takes it.
        inputs: Pictures, folders, patterns and videos; before them, unless ``model`` holds them, the weights.
        out: Folder for drawn pictures, and for class maps. Default: ``predictions``, unless there is ``json``.
        json: File for the results in COCO's format.
        score_thr: Least score of a detection that is kept.
        device: Of a checkpoint. Default: CUDA where there is one.

    Returns:
        int: Pictures and frames that were looked at.

    Raises:
        UserError: A model or an input is missing; or, after all others were done, a picture could not be read.
    """
    if not 0 <= score_thr <= 1:
        raise UserError(f'--score-thr must be from 0 to 1, and is {score_thr:g}')
    checkpoint, inputs = split_checkpoint(model, inputs)
    drawn = Path(out or 'predictions') if out or not json else None
    sources = find_sources(inputs, without=drawn)
    if json:
        check_writable(json)
    predictor = load_predictor(model, checkpoint, device)
    folder = Folder(drawn, predictor, score_thr) if drawn else None
    coco = CocoFile(predictor, score_thr) if json else None
    try:
        done, unreadable = _run(predictor, sources, score_thr, [sink for sink in (folder, coco) if sink is not None])
    except BaseException:  # Ctrl-C, a full disk: what was looked at is not lost
        if coco is not None and coco.images:
            coco.save(Path(json or ''))
        raise
    if coco is not None:
        coco.save(Path(json or ''))
    written = [f'{len(folder.written):,} files in {folder.path}'] if folder else []
    print(f'{done:,} pictures; written: ' + ', '.join(written + ([json] if json else [])))
    if unreadable:
        raise UserError(f'{len(unreadable)} of {len(sources)} could not be read: {", ".join(unreadable)}')
    return done


def split_checkpoint(model: str, inputs: Sequence[str]) -> tuple[str | None, list[str]]:
    """The checkpoint that may stand before the pictures, and the pictures.

    Raises:
        UserError: No picture is left.
    """
    first, *rest = inputs
    is_picture = first.lower().endswith(PICTURES + VIDEOS)  # of an address, too
    is_model = not is_picture and (is_weights_name(first) or first.endswith(EXPORTED))
    if is_model and not rest:
        raise UserError(f'{model} {first}: no pictures are named; give files, folders, patterns or videos after them')
    return (first, rest) if is_model else (None, list(inputs))


def _run(predictor: Predictor, sources: list[Source], score_thr: float, sinks: list) -> tuple[int, list[str]]:
    """Hand every picture's result to the sinks. Returns how many there were, and which files could not be read."""
    done, lines, unreadable = 0, 0, []
    screen = Console(stderr=True)
    columns = (TextColumn('predicting'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        task = bar.add_task('', total=sum(map(count_frames, sources)))
        for source in sources:
            try:
                for picture in read(source, predictor.read):
                    try:
                        result = predictor(picture.pixels)
                    except (ValueError, UserError) as error:  # of a step or a network that does not take it
                        raise Unreadable(f'{source.path} cannot be looked at by the model: {error}') from error
                    for sink in sinks:
                        sink.add(picture, result)
                    done += 1
                    bar.advance(task)
                    if lines < MOST_LINES and not source.is_video:
                        print(f'{picture.name}: {"; ".join(describe(predictor, result, score_thr))}')
                        lines += 1
                        if lines == MOST_LINES and done < len(sources):
                            print('…')
            except Unreadable as error:
                unreadable.append(source.name)
                bar.advance(task)
                print(error, file=sys.stderr)
            finally:
                for sink in sinks:
                    getattr(sink, 'end_source', lambda: None)()
    return done, unreadable
