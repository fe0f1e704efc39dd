"""Boxes of one kind before a fixed camera: how each of them lies, found without any label.

Camera and box are fitted to the outlines of many photos at once. Then each box is moved until what it shows fits what
the others show, from coarse to fine.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import NamedTuple, TypedDict

import numpy as np
import torch
from scipy import ndimage, optimize, sparse
from torch.nn import functional as F

_LENGTH = 2.0  # of the box, from front to back: the unit of all distances
_ANGLES = torch.arange(48) * (2 * torch.pi / 48)
_NORMALS = torch.stack([_ANGLES.cos(), _ANGLES.sin()])  # (2, 48): the directions in which outlines are compared
_CORNERS = torch.cartesian_prod(torch.tensor([-0.5, 0.5]), torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0]))  # (8, 3)
_FACES = {  # its top left corner, the way to its right and the way down, in units of the box
    "top": ((-0.5, 1.0, 1.0), (1.0, 0.0, 0.0), (0.0, -1.0, 0.0)),
    "front": ((-0.5, 0.0, 1.0), (1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
    "left": ((-0.5, 1.0, 1.0), (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)),
    "right": ((0.5, 0.0, 1.0), (0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
}
_LEAST_SEEN = 0.9  # of the photos, in which a face is turned to the camera
_FEWEST_FACES = 2  # a single one is a rectangle, which `crops` turns straight
_CAMERAS = [  # where the search begins: focal length, distance, tilt, roll, and width and height of the box
    (1.6, 8.5, tilt, 0.0, width, height) for tilt in (0.3, 0.6) for width in (0.7, 1.1, 1.6) for height in (0.5, 1.0)
]
_YAWS = torch.tensor([-0.7, -0.35, 0.0, 0.35, 0.7])  # radians: where the search for each box begins
_FEW = 24  # photos on which each of these cameras is tried
_TRIAL_STEPS, _FINAL_STEPS = 10, 60  # of camera and poses together, at most: to tell the best, and from it on
_OUTLINE_SCALE = 0.003  # of the photo's width: larger errors count less, for a part of the outline may be missed
_POINTS = 16  # along and across each face, at which prints are compared
_BLURS = (4.0, 2.7, 2.0, 1.3)  # px, from coarse to fine
_PRINT_SCALE = 0.5  # standard deviations of a print: larger differences count less, for damage differs
_AS_IT_IS = torch.zeros(1, 3)
_AROUND = torch.tensor([(0.0, along, turn) for along in (-0.8, -0.4, 0.0, 0.4) for turn in (-0.12, 0.0, 0.12)])
_STEPS, _STEP = 12, 1e-3  # of the descent, and the small step that tells a slope
_SETTLED = 2e-4  # a step so small ends it: a fiftieth of a pixel
_TYPICAL = 0.6  # of the photos, those that fit best, tell what all should show
_MOST_OFF = 4.0  # cost of the outline of half of the boxes
_MOST_UNLIKE = 0.2  # cost of the print of half of the boxes; of boxes that are not of one kind about 0.6


class Box(TypedDict):
    """A kind of boxes before a camera, as a card keeps it."""

    camera: list[float]  # focal length, distance, tilt, roll, and the box's width and height; see `matrices`
    faces: list[str]  # that the camera sees
    prints: str  # what they show at each blur, (4, 3, K) float16 in base64
    stretch: float  # by how much the photos that were looked at are flatter than those of the camera


class Found(NamedTuple):
    """faces (N, F, 3, 3): what takes (right, down, 1) of each face, both from 0 to 1, to px of the photo; costs (N,).

    A cost says how unlike the others a box looks: 0 not at all.
    """

    faces: np.ndarray
    costs: np.ndarray


def fit(photos: torch.Tensor, masks: np.ndarray, stretch: float = 1.0) -> Box | None:
    """The kind of boxes; None where they are not of one kind, or the camera sees a single face of them.

    photos: (N, 3, h, w) uint8 of one view. masks: (N, h, w) bool, where the boxes are, each with some pixels. stretch:
    how much higher the photos were, for their width, before they were brought to this size.
    """
    outlines = _outlines(masks, stretch)
    camera, poses = _fit_camera(outlines)
    costs = _cost(_outline_errors(camera, poses, outlines))
    faces = _seen_faces(camera, poses)
    if costs.median() > _MOST_OFF or len(faces) < _FEWEST_FACES:
        return None
    prints, points = [], _points(faces)
    for level, blur in enumerate(_BLURS):
        seen = _blurred(photos, blur)
        for around in [_AROUND] * (level < 2) + [_AS_IT_IS]:
            typical = costs <= costs.quantile(_TYPICAL)
            known = _standard(_look(seen[typical], camera, poses[typical, None], points, stretch).median(0).values[0])
            poses, costs = _fit_print(seen, camera, poses, known, points, stretch, around)
        if costs.median() > _MOST_UNLIKE:
            return None
        prints.append(known)
    text = base64.b64encode(torch.stack(prints).half().numpy().tobytes()).decode()
    return Box(camera=camera.tolist(), faces=faces, prints=text, stretch=stretch)


def find(photos: torch.Tensor, masks: np.ndarray, box: Box) -> Found:
    """How boxes of that kind lie in photos; both as for `fit`."""
    camera, points, stretch = torch.tensor(box["camera"], dtype=torch.float64), _points(box["faces"]), box["stretch"]
    poses, _ = _place(camera, _outlines(masks, stretch))
    for level, (blur, known) in enumerate(zip(_BLURS, _prints(box), strict=True)):
        around = _AROUND if level == 0 else _AS_IT_IS
        poses, costs = _fit_print(_blurred(photos, blur), camera, poses, known, points, stretch, around)
    height, width = masks.shape[1:]
    to_px = np.array([[width, 0, width / 2], [0, width / stretch, height / 2], [0, 0, 1.0]])
    return Found(to_px @ _homographies(camera, poses, box["faces"]), costs.numpy())


def matrices(camera: torch.Tensor, poses: torch.Tensor) -> torch.Tensor:
    """(N, 3, 4): what takes points (x, y, z, 1) in units of the box to the photo, from its middle, in its widths.

    camera (6,): focal length, distance, tilt, roll, and the box's width and height. poses (N, 3): x, y and yaw.
    Source: Hartley and Zisserman (2004), Multiple View Geometry, for the pinhole camera.
    """
    focal, distance, tilt, roll, width, height = camera
    x, y, yaw = poses.unbind(1)
    cosine, sine, zero, one = yaw.cos(), yaw.sin(), torch.zeros_like(x), torch.ones_like(x)
    world = torch.stack([cosine, -sine, zero, x, sine, cosine, zero, y, zero, zero, one, zero], 1).view(-1, 3, 4)
    world = world * torch.stack([width, camera.new_tensor(_LENGTH), height, camera.new_tensor(1.0)])
    zero, one = torch.zeros_like(tilt), torch.ones_like(tilt)
    view = torch.stack([one, zero, zero, zero, -tilt.sin(), -tilt.cos(), zero, tilt.cos(), -tilt.sin()]).view(3, 3)
    turn = torch.stack([roll.cos(), -roll.sin(), zero, roll.sin(), roll.cos(), zero, zero, zero, one]).view(3, 3)
    found = turn @ view @ world
    found[:, 2, 3] += distance
    return found * torch.stack([focal, focal, one])[:, None]


def _project(camera: torch.Tensor, poses: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """(..., K, 2) of points (K, 3) in units of the boxes, which lie as poses (..., 3) say."""
    found = F.pad(points, (0, 1), value=1.0).to(camera) @ matrices(camera, poses.reshape(-1, 3)).mT
    return (found[..., :2] / found[..., 2:].clamp(min=0.1)).view(*poses.shape[:-1], len(points), 2)


def _outlines(masks: np.ndarray, stretch: float) -> torch.Tensor:
    """(N, 48): how far each reaches from the photo's middle in each direction, in widths; NaN where the photo ends."""
    return torch.from_numpy(np.stack([_outline(mask, stretch) for mask in masks]))


def _outline(mask: np.ndarray, stretch: float) -> np.ndarray:
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    points = np.stack([columns + 0.5 - width / 2, rows + 0.5 - height / 2], 1)
    reach = (points * [1, stretch]) @ _NORMALS.numpy()
    far = points[reach.argmax(0)]
    cut = (abs(far[:, 0]) > width / 2 - 2) | (abs(far[:, 1]) > height / 2 - 2)
    return np.where(cut, np.nan, reach.max(0) / width)


def _fit_camera(outlines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Camera (6,) and poses (N, 3) that explain the outlines (N, 48) best."""
    few, tried = outlines[:: max(1, len(outlines) // _FEW)][:_FEW], []
    for start in torch.tensor(_CAMERAS, dtype=torch.float64):
        camera, poses = _together(start, _place(start, few)[0], few, _TRIAL_STEPS)
        tried.append((_cost(_outline_errors(camera, poses, few)).median(), camera))
    camera = min(tried, key=lambda one: one[0])[1]
    for _ in range(3):
        camera, poses = _together(camera, _place(camera, outlines)[0], outlines, _FINAL_STEPS)
    return camera, poses


def _together(
    camera: torch.Tensor, poses: torch.Tensor, outlines: torch.Tensor, steps: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Camera and poses, moved at once, so many steps at most."""

    def errors(flat: np.ndarray) -> np.ndarray:
        both = torch.from_numpy(flat)
        return _outline_errors(both[:6], both[6:].view(-1, 3), outlines).flatten().numpy()

    own = sparse.kron(sparse.eye(len(poses)), np.ones((outlines.shape[1], 3)))  # each outline depends on its own pose
    depends = sparse.hstack([np.ones((outlines.numel(), 6)), own])
    start = torch.cat([camera, poses.flatten()]).numpy()
    how = {"loss": "huber", "x_scale": "jac", "max_nfev": steps}
    found = torch.from_numpy(optimize.least_squares(errors, start, jac_sparsity=depends, **how).x)
    return found[:6], found[6:].view(-1, 3)


def _place(camera: torch.Tensor, outlines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses (N, 3) of the boxes by their outlines (N, 48), and costs (N,)."""
    scale = camera[1] / camera[0]
    across, down = ((outlines[:, one] - outlines[:, one + 24]).nan_to_num() * scale / 2 for one in (0, 12))
    back = -down / camera[2].sin().clamp(min=0.3) - _LENGTH / 2
    starts = [torch.stack([across, back, torch.full_like(back, yaw)], 1) for yaw in _YAWS.tolist()]
    return _descend(lambda poses: _outline_errors(camera, poses, outlines[:, None]), torch.stack(starts, 1))


def _outline_errors(camera: torch.Tensor, poses: torch.Tensor, outlines: torch.Tensor) -> torch.Tensor:
    """(..., 48) of boxes that lie as poses (..., 3) say, in _OUTLINE_SCALE; 0 where an outline is not known."""
    reach = (_project(camera, poses, _CORNERS) @ _NORMALS.to(camera)).amax(-2)
    return (reach - outlines).nan_to_num() / _OUTLINE_SCALE


def _seen_faces(camera: torch.Tensor, poses: torch.Tensor) -> list[str]:
    """The faces that are turned to the camera in nearly all photos."""
    matrix = matrices(camera, poses)
    eyes = -torch.linalg.solve(matrix[:, :, :3], matrix[:, :, 3])  # where the camera is, in units of each box
    faces = []
    for name, frame in _FACES.items():
        corner, right, down = torch.tensor(frame, dtype=torch.float64)
        outward = torch.linalg.cross(down, right)
        if ((eyes - corner) @ outward > 0).double().mean() >= _LEAST_SEEN:
            faces.append(name)
    return faces


def _points(faces: list[str]) -> torch.Tensor:
    """(K, 3), evenly spread over each face, in units of the box."""
    steps = (torch.arange(_POINTS) + 0.5) / _POINTS
    shares = torch.cartesian_prod(steps, steps)
    frames = [torch.tensor(_FACES[face]) for face in faces]
    return torch.cat([frame[0] + shares @ frame[1:] for frame in frames])


def _blurred(photos: torch.Tensor, blur: float) -> torch.Tensor:
    """(N, 3, h, w) float: light, and how far green and red differ from the other colors, smoothed."""
    red, green, blue = photos.float().unbind(1)
    parts = torch.stack([(red + green + blue) / 3, 1.5 * (green - (red + blue) / 2), 1.5 * (red - blue)], 1)
    return torch.from_numpy(ndimage.gaussian_filter(parts.numpy(), (0, 0, blur, blur)))


def _look(
    seen: torch.Tensor, camera: torch.Tensor, poses: torch.Tensor, points: torch.Tensor, stretch: float
) -> torch.Tensor:
    """(N, S, 3, K): what photos (N, 3, h, w) of `_blurred` show at the points of boxes that lie so; see `_standard`.

    poses: (N, S, 3), several for each photo.
    """
    height, width = seen.shape[2:]
    places = _project(camera, poses, points).to(seen) * 2 * torch.tensor([1.0, width / height / stretch])
    return _standard(F.grid_sample(seen, places, padding_mode="border", align_corners=False).transpose(1, 2))


def _standard(prints: torch.Tensor) -> torch.Tensor:
    """Prints (..., 3, K) without the mean of each color, and of standard deviation 1: light has no part in them."""
    prints = prints - prints.mean(-1, keepdim=True)
    return prints / (prints.std((-1, -2), keepdim=True) + 1e-3)


def _fit_print(
    seen: torch.Tensor,
    camera: torch.Tensor,
    poses: torch.Tensor,
    known: torch.Tensor,
    points: torch.Tensor,
    stretch: float,
    around: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses (N, 3) and costs (N,) of boxes moved until they show what is known (3, K), from starts around (S, 3)."""

    def errors(tried: torch.Tensor) -> torch.Tensor:
        return (_look(seen, camera, tried, points, stretch) - known).flatten(2).double() / _PRINT_SCALE

    return _descend(errors, poses[:, None] + around)


def _descend(errors: Callable[[torch.Tensor], torch.Tensor], poses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Poses (N, 3) of least cost, and the costs (N,), the best of several starts (N, S, 3) each.

    errors: (N, S, E) of poses (N, S, 3). All of them descend at once, by the method of Levenberg (1944) and Marquardt
    (1963), with the loss of `_cost`.
    """
    error, damping = errors(poses), torch.full((*poses.shape[:2], 1, 1), 1e-2, dtype=torch.float64)
    for _ in range(_STEPS):
        slopes = torch.stack([(errors(poses + one) - error) / _STEP for one in _STEP * torch.eye(3)], 3)  # (N, S, E, 3)
        weighted = slopes * (1 + error**2).rsqrt()[..., None]
        bend = weighted.mT @ slopes
        bend = bend + damping * torch.diag_embed(bend.diagonal(dim1=2, dim2=3) + 1e-6)
        tried = poses - torch.linalg.solve(bend, (weighted * error[..., None]).sum(2))
        if (tried - poses).abs().max() < _SETTLED:
            break
        new = errors(tried)
        better = (_cost(new) < _cost(error))[..., None]
        poses, error = torch.where(better, tried, poses), torch.where(better, new, error)
        damping = torch.where(better[..., None], damping * 0.3, damping * 5).clamp(1e-6, 1e4)
    costs, best = _cost(error).min(1)
    return poses[torch.arange(len(poses)), best], costs


def _cost(error: torch.Tensor) -> torch.Tensor:
    """(...,) of errors (..., E): squares of small ones, sizes of large ones. Source: Charbonnier et al. (1997)."""
    return ((1 + error**2).sqrt() - 1).mean(-1)


def _homographies(camera: torch.Tensor, poses: torch.Tensor, faces: list[str]) -> np.ndarray:
    """(N, F, 3, 3) as in `Found`, from the photo's middle and in its widths."""
    frames = torch.tensor([_FACES[face] for face in faces], dtype=torch.float64)  # (F, 3, 3): corner, right, down
    frames = F.pad(frames, (0, 1))
    frames[:, 0, 3] = 1
    return (matrices(camera, poses)[:, None] @ frames[:, [1, 2, 0]].mT).numpy()


def _prints(box: Box) -> torch.Tensor:
    """(4, 3, K)"""
    values = np.frombuffer(base64.b64decode(box["prints"]), np.float16).astype(np.float32)
    return torch.from_numpy(values.reshape(len(_BLURS), 3, -1))
