"""Which layout a folder has, told by what lies in it."""

from pathlib import Path

from minifcn.data import camvid, cityscapes, nuclei, plain, sbd, voc
from minifcn.errors import InputError

LOOKED_FOR = (
    "ImageSets/Segmentation (voc), img and cls (sbd), train and trainannot (camvid), leftImg8bit "
    "and gtFine (cityscapes), images and masks (folder, or nuclei where shipped pictures are among "
    "them)"
)


def recognise(folder: Path | str) -> str:
    """The name of the layout: voc, sbd, camvid, cityscapes, folder or nuclei.

    Raises:
        InputError: there is no such folder, or it has none of the layouts, or more than one.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; give one of labelled pictures: {LOOKED_FOR}")
    found = [
        name
        for name, fits in (
            ("voc", voc.fits),
            ("sbd", sbd.fits),
            ("camvid", camvid.fits),
            ("cityscapes", cityscapes.fits),
            ("folder", plain.fits),
        )
        if fits(path)
    ]
    if not found:
        state = "has no layout that is known" if any(path.iterdir()) else "is empty"
        raise InputError(
            f"{path} {state}; looked for were {LOOKED_FOR}: give the folder that holds one of "
            "these, or bring your pictures into images and masks"
        )
    if len(found) > 1:
        raise InputError(
            f"{path} has the layouts {' and '.join(found)} at once; say which by --layout (looked "
            f"for were {LOOKED_FOR})"
        )
    # Only the names tell the nuclei from any other images and masks.
    return "nuclei" if found == ["folder"] and nuclei.fits(path) else found[0]
