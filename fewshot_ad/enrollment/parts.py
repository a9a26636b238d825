"""What parts on the images of a support set look like, and the support set of the parts, one by one."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np

from fewshot_ad.arrays import Float32Array, Float64Array, Progress, Uint8Array
from fewshot_ad.enrollment.foreground import FALL_OFF, MARGIN, soft_weights
from fewshot_ad.enrollment.support import SupportImage, SupportSet, pixel_hash
from fewshot_ad.errors import SupportSetError
from fewshot_ad.images import MIN_SIDE
from fewshot_ad.registration.blobs import FIND_SIZE, Blob, at_find_scale, blobs_of, side_of
from fewshot_ad.registration.parts import (
    LARGEST_AREA,
    LEAST_AREA,
    LEAST_OTHER,
    MIN_PART_SIDE,
    MOST_OTHER,
    CutImage,
    PartLayout,
    cut_out,
    window_matrix,
)
from fewshot_ad.registration.template import Template, pictured, to_picture

# A blob that covers less of the image is a speck, whatever else lies on it.
LEAST_SHARE = 0.0005
# A template is made anew from what has been matched with the one before, so many times.
ROUNDS = 2
# Parts whose picture agrees less than this with the template are none of these parts.
LEAST_AGREEMENT = 0.5
# How much wider than a part its window is at first, as a share of its reach.
ROOM = 0.3
# Images on which parts are looked at for their layout, at most; all are cut.
MAX_IMAGES = 16


class Found(NamedTuple):
    """What is known of parts.

    Attributes:
        layout: What they look like.
        weights: (h, w) uint8: how much each place of a part's own image counts, 0 to 255.
        support: The parts, one by one.
        reason: In words.
    """

    layout: PartLayout
    weights: Uint8Array
    support: SupportSet
    reason: str


def find_parts(support: SupportSet, expected: int | None, progress: Progress | None = None) -> Found:
    """Find the parts on the images of a support set and cut them out.

    Args:
        support: The images, each with one part or several on a plain background.
        expected: How many parts each shows; None for any number.
        progress: Called as `progress("parts", done, total)`.

    Raises:
        SupportSetError: The background is not plain, no part is found, parts are too small, or an image shows another
            number than expected.
    """
    # By hash, so that the order of the support set decides nothing.
    ordered = sorted(support.images, key=lambda image: image.sha256)[:MAX_IMAGES]
    layout, weights = _layout(ordered, expected)
    images, notes, counts, without = list[SupportImage](), list(support.notes), list[int](), 0
    for done, image in enumerate(support.images):
        if progress is not None:
            progress("parts", done, len(support.images))
        cut = cut_out(image.pixels, layout)
        own, noted = _parts_of(image, cut)
        images += own
        notes += noted
        counts.append(len(cut.parts))
        without += not own
        if expected is not None and (len(cut.parts) != expected or any(part.reason for part in cut.parts)):
            why = "".join(f"; {note}" for note in noted)
            raise SupportSetError(
                f"expected {expected} parts on each image, each by itself, got {len(cut.parts)} on {image.name}{why}. "
                "Give another number, or leave that image out."
            )
    if not images:
        raise SupportSetError(
            f"expected parts that can be told from each other, got none: {'; '.join(notes)}. Lay them apart from each "
            "other and from the edge of the image."
        )
    if 2 * without > len(support.images):
        raise SupportSetError(
            f"expected parts on each image, got none that can be judged on {without} of {len(support.images)}: "
            f"{'; '.join(notes)}. Lay them apart from each other and from the edge of the image, or leave those "
            "images out."
        )
    share = layout.largest_other / layout.area
    if share > MOST_OTHER:
        raise SupportSetError(
            f"expected images with parts and next to nothing else, got some with a thing that covers {share:.0%} of "
            f"what a part covers: {'; '.join(notes)}. Take it away, or leave those images out."
        )
    if share > LEAST_OTHER:
        notes.append(
            f"what lies on the images besides parts covers up to {share:.0%} of a part: things twice that size, or a "
            "fifth of a part, are told, smaller ones are not. Clean the ground and enroll again to be told of less"
        )
    if len(images) > 1:
        notes = [note for note in notes if not note.startswith("only one image")]
    number = f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"
    reason = f"parts: {number} on an image, cut out and turned into one pose; {len(images)} in all."
    if expected is None and len(counts) > 1 and min(counts) == max(counts) > 1:
        notes.append(f"each image shows {number} parts: give expect={number} to be told of missing ones")
    return Found(layout, weights, SupportSet(tuple(images), tuple(notes)), reason)


def cut_support(support: SupportSet, layout: PartLayout) -> SupportSet:
    """Further images, part by part.

    Raises:
        SupportSetError: None of them shows a part that can be judged.
    """
    images, notes = list[SupportImage](), list(support.notes)
    for image in support.images:
        own, noted = _parts_of(image, cut_out(image.pixels, layout))
        images += own
        notes += noted
    if not images:
        raise SupportSetError(f"expected images with parts, got none on which one can be judged: {'; '.join(notes)}.")
    return SupportSet(tuple(images), tuple(notes))


def part_image(name: str, number: int, pixels: Uint8Array) -> SupportImage:
    """One part of an image, by itself."""
    return SupportImage(part_name(name, number), pixel_hash(pixels), pixels)


def part_name(name: str, number: int) -> str:
    """What a part of an image is called."""
    return f"{name} part {number}"


def name_of_image(name: str) -> str:
    """What the image is called that a part was cut from; the name itself if it is none of a part."""
    return re.sub(r" part \d+$", "", name)


def _parts_of(image: SupportImage, cut: CutImage) -> tuple[list[SupportImage], list[str]]:
    """The parts of an image that can be judged, and what was noticed."""
    if cut.reason:
        return [], [f"left out, {image.name}: {cut.reason}"]
    parts, notes = [], []
    for number, part in enumerate(cut.parts, start=1):
        if part.pixels is None:
            notes.append(f"left out, {part_name(image.name, number)}: {part.reason}")
        else:
            parts.append(part_image(image.name, number, part.pixels))
    if not cut.parts:
        notes.append(f"left out, {image.name}: no part is found on it")
    if cut.others:
        notes.append(f"{image.name} shows {len(cut.others)} thing(s) besides parts, at {cut.others[0][:2]}")
    return parts, notes


class _Seen(NamedTuple):
    """A part on a support image: the image at the scale at which parts are looked for, and where it is."""

    content: Uint8Array
    blob: Blob


def _layout(images: Sequence[SupportImage], expected: int | None) -> tuple[PartLayout, Uint8Array]:
    """What parts look like, and how much each place of a part's own image counts."""
    seen: list[_Seen] = []
    uneven: list[str] = []
    for image in images:
        content = at_find_scale(image.pixels)
        blobs = blobs_of(content)
        if blobs is not None:
            seen += [_Seen(content, blob) for blob in blobs]
        else:
            uneven.append(image.name)
    if len(uneven) == len(images):
        raise SupportSetError(
            f"expected parts on a plain background, got images whose border is not plain, such as {uneven[0]}. "
            "Photograph them on an even ground that differs from them, with some of it all around; or enroll without "
            "parts."
        )
    shares = np.array([one.blob.area / side_of(one.content.shape) ** 2 for one in seen])
    whole = np.array([not one.blob.at_edge for one in seen], bool) & (shares >= LEAST_SHARE)
    if not whole.any():
        small = any(not one.blob.at_edge for one in seen)
        why = (
            f"what differs from the background covers less than {LEAST_SHARE:.2%} of an image"
            if small
            else "nothing does"
        )
        raise SupportSetError(
            f"expected parts that differ from the plain background and lie apart from the edge of the image: {why}. "
            "See that parts differ from it, that each lies wholly in view, and that they are large enough."
        )
    area = _usual_area(shares[whole])
    usual = whole & (shares >= LEAST_AREA * area) & (shares <= LARGEST_AREA * area)
    others = shares[whole & (shares < LEAST_AREA * area)]
    parts = [one for one, is_part in zip(seen, usual, strict=True) if is_part]
    reach = float(np.median([one.blob.reach / side_of(one.content.shape) for one in parts]))
    template, poses = _template(parts, reach)
    wide = 2 * (1 + ROOM) * reach
    layout, weights = _window(
        parts,
        poses,
        PartLayout((wide, wide), (0.5, 0.5), area, reach, float(others.max(initial=0.0)), template.store(), expected),
    )
    smallest = min(min(layout.window(image.pixels.shape)) for image in images)
    if smallest < max(MIN_PART_SIDE, MIN_SIDE):
        raise SupportSetError(
            f"expected parts that are at least {MIN_PART_SIDE} pixels across, got {smallest} with their surroundings. "
            "Photograph fewer at once, from closer by."
        )
    return layout, weights


def _usual_area(shares: Float64Array) -> float:
    """What a part covers: the size of which things cover most of the images together, not a clump or a speck."""

    def together(area: float) -> float:
        return float(shares[(shares >= LEAST_AREA * area) & (shares <= LARGEST_AREA * area)].sum())

    best = max(sorted(shares.tolist()), key=together)
    return float(np.median(shares[(shares >= LEAST_AREA * best) & (shares <= LARGEST_AREA * best)]))


def _template(parts: Sequence[_Seen], reach: float) -> tuple[Template, list[Float64Array]]:
    """A part as it looks on the mean, and how each lies against that."""
    pictures = [pictured(one.content, one.blob, reach * side_of(one.content.shape)) for one in parts]
    areas = np.array([one.blob.area / side_of(one.content.shape) ** 2 for one in parts])
    first = int(np.abs(areas - np.median(areas)).argmin())
    picture = _upright(pictures[first], parts[first].blob)
    for _ in range(ROUNDS):
        template = Template(picture)
        found = [template.pose(one) for one in pictures]
        agreeing = [at for at, (_, agreement) in enumerate(found) if agreement >= LEAST_AGREEMENT]
        posed = [_posed(pictures[at], found[at][0]) for at in agreeing]
        picture = np.mean(posed, axis=0).astype(np.float32) if posed else picture
    template = Template(picture)
    return template, [template.pose(one)[0] for one in pictures]


def _upright(picture: Float32Array, blob: Blob) -> Float32Array:
    """A picture turned so that the box around the part is as small as can be, by no more than 45 degrees."""
    rows, columns = np.nonzero(blob.mask)
    points = np.stack([columns, rows], axis=1).astype(np.float32)
    angle = cv2.minAreaRect(points)[2]
    angle -= 90 * round(angle / 90)
    middle = (picture.shape[0] - 1) / 2
    return cv2.warpAffine(picture, cv2.getRotationMatrix2D((middle, middle), angle, 1.0), picture.shape[::-1])


def _posed(picture: Float32Array, pose: Float64Array) -> Float32Array:
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, pose, picture.shape[::-1], flags=flags)


def _window(parts: Sequence[_Seen], poses: Sequence[Float64Array], layout: PartLayout) -> tuple[PartLayout, Uint8Array]:
    """The layout with a window that just holds the parts and what is close to them, and how much counts in it.

    Args:
        parts: Some parts.
        poses: How each lies against the template.
        layout: With a window that is larger than that.
    """
    width, height = layout.window((FIND_SIZE, FIND_SIZE))
    union = np.zeros((height, width), bool)
    for (content, blob), pose in zip(parts, poses, strict=True):
        picture = to_picture(blob, layout.reach * side_of(content.shape))
        forward = window_matrix(pose, picture, layout, (FIND_SIZE, FIND_SIZE), np.ones(2))
        union |= cv2.warpAffine(blob.on(content.shape), forward, (width, height), flags=cv2.INTER_LINEAR) > 127
    x, y, across, down = cv2.boundingRect(union.astype(np.uint8))
    room = int(np.ceil((MARGIN + FALL_OFF) * max(across, down)))
    left, top = max(0, x - room), max(0, y - room)
    right, bottom = min(width, x + across + room), min(height, y + down + room)
    size = (right - left, bottom - top)
    center = (width * layout.center[0] - left) / size[0], (height * layout.center[1] - top) / size[1]
    shares = size[0] / FIND_SIZE, size[1] / FIND_SIZE
    own = union[top:bottom, left:right]
    return dataclasses.replace(layout, size=shares, center=center), soft_weights(own)
