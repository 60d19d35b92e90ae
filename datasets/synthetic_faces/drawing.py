"""Draws a person in a scene with given action units.

Every shape is a function of coordinates on the face and of the action units. Action units move the
shapes, and pose transforms the coordinates. Units are those of `scene`.
"""

from collections.abc import Mapping

import numpy as np

from datasets.synthetic_faces.scene import Person, Scene

SIZE = 48
_OVERSAMPLING = 2
_STRIDE = 4
_CROWN = 1.2  # From the origin up to the top of the skull.

# FACS number -> intensity, [faces, 1, 1].
_ActionUnits = Mapping[int, np.ndarray]


def draw(person: Person, scene: Scene, action_units: Mapping[int, np.ndarray]) -> np.ndarray:
    """Draws one person in one scene with each of several sets of action units.

    Args:
      person: geometry and tones.
      scene: pose, light and surroundings.
      action_units: FACS number -> intensities in [0, 1], float32 [faces, 2], for the halves of the
        face with negative and with positive x.

    Returns:
      float32 [faces, 48, 48], 0 black, 1 white; light can raise a tone above 1.
    """
    halves = {
        side: {number: value[:, index, None, None] for number, value in action_units.items()}
        for index, side in enumerate((-1, 1))
    }
    both = {number: (halves[-1][number] + halves[1][number]) / 2 for number in action_units}
    faces = len(both[1])
    canvas = _Canvas(faces, person, scene)
    _head(canvas, person, scene, both)
    for side, au in halves.items():
        _cheek(canvas, person, side, au)
        _eye(canvas, person, scene, side, au)
        _brow(canvas, person, side, au)
    _nose(canvas, person, both)
    _mouth(canvas, person, halves, both)
    for side, au in halves.items():
        _folds(canvas, person, side, au)
    canvas.tone *= 1 + scene.light_x * canvas.u + scene.light_y * canvas.v
    _hair(canvas, person)
    _OCCLUDERS[scene.occluder](canvas, person, scene)
    return canvas.tone.reshape(faces, SIZE, _OVERSAMPLING, SIZE, _OVERSAMPLING).mean((2, 4))


class _Canvas:
    """The pixels of the faces, and the coordinates for drawing.

    `tone` is [faces, samples, samples]. `x` and `y`, [samples, samples], are coordinates on the
    turned face; `u` and `v` have roll only, and the outline of the head follows them.
    """

    def __init__(self, faces: int, person: Person, scene: Scene):
        size = SIZE * _OVERSAMPLING
        axis = (np.arange(size, dtype=np.float32) + 0.5) / _OVERSAMPLING - SIZE / 2
        right, down = axis[None, :] - scene.shift_x, axis[:, None] - scene.shift_y
        cos, sin = float(np.cos(scene.roll)), float(np.sin(scene.roll))
        self.u = (cos * right + sin * down) / scene.scale
        self.v = (cos * down - sin * right) / scene.scale
        # The skull is an ellipsoid, on which the features move when it turns.
        across = self.u / person.width
        along = np.maximum(self.v / person.chin, self.v / -_CROWN)
        depth = np.sqrt(np.maximum(0, 1 - across * across - along * along))
        self.x = self.u * float(np.cos(scene.yaw)) - depth * float(np.sin(scene.yaw))
        self.y = self.v * float(np.cos(scene.pitch)) - depth * float(np.sin(scene.pitch))
        self.samples_per_unit = scene.scale * _OVERSAMPLING
        self.tone = np.empty((faces, size, size), np.float32)

    def crop(self, left: float, right: float, top: float, bottom: float) -> "_Canvas":
        """Returns the part of the canvas with a rectangle of the face, as most shapes are small."""
        x, y = self.x[::_STRIDE, ::_STRIDE], self.y[::_STRIDE, ::_STRIDE]
        within = (x > left) & (x < right) & (y > top) & (y < bottom)
        rows, columns = (_range(within.any(axis)) for axis in (1, 0))
        part = object.__new__(_Canvas)
        part.x, part.y = self.x[rows, columns], self.y[rows, columns]
        part.tone = self.tone[:, rows, columns]
        part.samples_per_unit = self.samples_per_unit
        return part

    def crop_half(
        self, side: int, inner: float, outer: float, top: float, bottom: float
    ) -> "_Canvas":
        """Crops one half of the face; x increases outwards."""
        left, right = sorted((side * inner, side * outer))
        part = self.crop(left, right, top, bottom)
        part.x = side * part.x
        return part

    def inside(self, margin: np.ndarray) -> np.ndarray:
        """Converts the distance to a shape's edge, positive inside, to coverage in [0, 1]."""
        return np.clip(margin * self.samples_per_unit + 0.5, 0, 1)

    def paint(self, coverage: np.ndarray, tone: np.ndarray | float) -> None:
        self.tone += coverage * (tone - self.tone)

    def shade(self, amount: np.ndarray) -> None:
        """Darkens by a share; lightens if it is negative."""
        self.tone *= 1 - amount


def _range(filled: np.ndarray) -> slice:
    """Returns the range of samples that covers the filled strides and their neighbourhood."""
    where = filled.nonzero()[0].tolist()
    return slice(max(0, (where[0] - 1) * _STRIDE), (where[-1] + 1) * _STRIDE) if where else slice(0)


def _blob(x: np.ndarray, y: np.ndarray, width: float, height: float | np.ndarray) -> np.ndarray:
    """A soft patch around the origin of (x, y): 1 at its centre, 0 outside its rim."""
    x, y = x / width, y / height
    soft = np.maximum(0, 1 - x * x - y * y)
    return soft * soft


def _ridge(distance: np.ndarray, width: float) -> np.ndarray:
    """A soft line along distance 0; 0 beyond `width`."""
    distance = distance / width
    return np.maximum(0, 1 - distance * distance)


def _line(x: np.ndarray, y: np.ndarray, x0, y0, x1, y1, width: float) -> np.ndarray:
    """A soft line from (x0, y0) to (x1, y1)."""
    dx, dy = x1 - x0, y1 - y0
    x, y = x - x0, y - y0
    along = np.clip((x * dx + y * dy) / (dx * dx + dy * dy), 0, 1)
    x, y = x - along * dx, y - along * dy
    return np.maximum(0, 1 - (x * x + y * y) / width**2)


def _ellipse(x: np.ndarray, y: np.ndarray, width: float, height: float) -> np.ndarray:
    """The approximate distance to an ellipse's edge, positive inside."""
    x, y = x / width, y / height
    return 1 - np.sqrt(x * x + y * y)


def _head(canvas: _Canvas, person: Person, scene: Scene, au: _ActionUnits) -> None:
    u, v = canvas.u, canvas.v
    canvas.tone[:] = scene.background + scene.background_slope * (u + v)
    hair = _ellipse(u, v, person.width + person.hair_volume, _CROWN + person.hair_volume)
    canvas.paint(canvas.inside(np.minimum(hair, person.hair_length - v)), 0.8 * person.hair)
    canvas.paint(canvas.inside(np.minimum(0.55 * person.width - abs(u), v)), 0.6 * person.skin)
    ears = 0.13 * _ellipse(abs(u) - person.width, v + 0.05, 0.13, 0.22)
    canvas.paint(canvas.inside(ears), 0.75 * person.skin)
    # The jaw drop lengthens the lower face.
    along = np.maximum(v / (person.chin + 0.16 * au[26]), v / -_CROWN)
    across = u / (person.width * (1 - person.taper * along * along * (v > 0)))
    square = across * across + along * along
    rim = np.minimum(square, 1) ** 2
    canvas.paint(canvas.inside(1 - np.sqrt(square)), person.skin * (1.05 - 0.3 * rim))


def _cheek(canvas: _Canvas, person: Person, side: int, au: _ActionUnits) -> None:
    part = canvas.crop_half(side, -0.05, 1, -0.6, 0.7)
    x, y = part.x, part.y
    part.shade(0.22 * _blob(x - person.eye_x + 0.04, y - person.eye_y + 0.02, 0.42, 0.3))
    lift = (au[6] + au[12]) / 2
    part.shade(-(0.08 + 0.18 * lift) * _blob(x - 0.55, y - 0.32 + 0.12 * lift, 0.34, 0.26))


def _eye(canvas: _Canvas, person: Person, scene: Scene, side: int, au: _ActionUnits) -> None:
    part = canvas.crop_half(side, 0.1, 1, -0.6, 0.12)
    x, y = part.x - person.eye_x, part.y - person.eye_y
    width, height = person.eye_width, person.eye_height
    across = x / width
    profile = np.maximum(0, 1 - across * across)
    upper = height * (1 + 0.75 * au[5] - 0.35 * au[7] - 0.25 * au[9] - 0.15 * au[6])
    lower = height * (0.8 - 0.7 * np.minimum(1, au[6] + au[7] + 0.4 * au[9]))
    top, bottom = -upper * profile, lower * profile
    opening = part.inside(np.minimum(y - top, bottom - y)) * (profile > 0)
    part.paint(opening, 0.35 + 0.6 * person.skin)
    gaze_x, gaze_y = x - side * scene.gaze_x, y - scene.gaze_y
    for centre_x, centre_y, radius, tone in (
        (gaze_x, gaze_y, 0.115, person.iris),
        (gaze_x, gaze_y, 0.055, 0.02),
        (gaze_x + side * 0.035, gaze_y + 0.035, 0.028, 0.95),
    ):
        disc = radius * _ellipse(centre_x, centre_y, radius, radius)
        part.paint(opening * part.inside(disc), tone)
    within = abs(across) < 1.1
    part.paint(0.85 * _ridge(y - top, 0.045) * within, 0.2 * person.skin)
    part.shade(0.35 * _ridge(y - bottom, 0.035) * within)
    part.shade((0.3 - 0.2 * au[7]) * _blob(x, y - 1.2 * top + 0.07, 1.1 * width, 0.035))
    # The pouch below a tight lid, and crow's feet.
    pouch = np.minimum(1, au[6] + au[7])
    if pouch.any():
        part.shade(person.wrinkles * pouch * _blob(x, y - bottom - 0.07, width, 0.04))
    if au[6].any():
        for rise in (-0.1, 0.0, 0.1):
            foot = _line(x, y, width + 0.05, 0.3 * rise, width + 0.2, rise, 0.03)
            part.shade(person.wrinkles * au[6] * foot)


def _brow(canvas: _Canvas, person: Person, side: int, au: _ActionUnits) -> None:
    part = canvas.crop_half(side, -0.1, 0.95, -1.15, -0.05)
    x, y = part.x, part.y
    level, length = person.brow_y, person.brow_length
    along = (x - 0.16 + 0.07 * au[4]) / length
    inner = level - 0.2 * au[1] - 0.03 * au[2] + 0.2 * au[4] + 0.09 * au[9]
    arch = level - 0.07 - 0.06 * au[1] - 0.17 * au[2] + 0.12 * au[4] + 0.06 * au[9]
    outer = level + person.brow_slant + 0.04 * au[1] - 0.17 * au[2] + 0.03 * au[4]
    # The parabola through the three heights at 0, 1/2 and 1.
    curve = inner + along * (4 * arch - 3 * inner - outer + along * 2 * (inner + outer - 2 * arch))
    thickness = person.brow_thickness * (1 - 0.5 * along)
    ends = np.minimum(along, 1 - along) * length
    margin = np.minimum(thickness - abs(y - curve), ends)
    part.paint(0.9 * part.inside(margin), person.brow)
    # Horizontal lines above a raised brow, a vertical one beside a lowered brow.
    for raiser, middle in ((au[1], 0.1), (au[2], 0.46)):
        if raiser.any():
            for step in (0.14, 0.25):
                above = y - np.minimum(inner, arch) + step
                part.shade(person.wrinkles * raiser * _blob(x - middle, above, 0.24, 0.035))
    if au[4].any():
        furrow = _line(x, y, 0.07, level + 0.02, 0.09, level + 0.22, 0.035)
        part.shade(1.3 * person.wrinkles * au[4] * furrow)


def _nose(canvas: _Canvas, person: Person, au: _ActionUnits) -> None:
    part = canvas.crop(-0.35, 0.35, -0.55, 0.45)
    x, y = abs(part.x), part.y
    root, tip = person.eye_y + 0.05, person.nose_y - 0.07 * au[9]
    width = person.nose_width
    part.shade(0.22 * _line(x, y, 0.09, root, 0.7 * width, tip - 0.08, 0.07))
    part.shade(-0.22 * _blob(x, y - (root + tip) / 2, 0.06, (tip - root) / 1.6))
    wing = _line(x, y, width, tip - 0.1, width, tip - 0.01, 0.045)
    part.shade((0.25 + 0.25 * au[9]) * wing)
    part.shade(0.75 * _blob(x - 0.55 * width, y - tip, 0.075, 0.045))
    if au[9].any():
        for step in (0.0, 0.09, 0.18):
            wrinkle = _line(x, y, 0.0, root + step, 0.15, root + step - 0.07, 0.032)
            part.shade(1.5 * person.wrinkles * au[9] * wrinkle)


def _mouth(
    canvas: _Canvas, person: Person, halves: Mapping[int, _ActionUnits], au: _ActionUnits
) -> None:
    part = canvas.crop(-0.9, 0.9, 0.15, 1.7)

    def corner(au: _ActionUnits) -> tuple[np.ndarray, np.ndarray]:
        reach = 1 + 0.3 * au[12] + 0.36 * au[20] - 0.25 * au[23] - 0.14 * au[26] - 0.1 * au[17]
        drop = person.mouth_curve - 0.26 * au[12] + 0.2 * au[15] + 0.06 * au[20] + 0.1 * au[26]
        return person.mouth_width * reach, drop

    (left_reach, left_drop), (right_reach, right_drop) = corner(halves[-1]), corner(halves[1])
    right = part.x > 0
    across = part.x / np.where(right, right_reach, left_reach)
    profile = np.maximum(0, 1 - across * across)
    bow = np.sqrt(profile)
    within = profile > 0
    y = part.y - person.mouth_y - np.where(right, right_drop, left_drop) * (1 - profile)
    gap = 0.11 * au[25] + 0.34 * au[26]
    upper = -0.07 * au[9] - 0.07 * au[17] - 0.25 * gap
    lower = upper + np.maximum(gap, 0.75 * gap + 0.1 * au[16])
    top, bottom = upper * profile, upper * profile + (lower - upper) * bow
    tight = 1 - 0.8 * au[23] - 0.25 * au[12] - 0.3 * au[20]
    upper_lip = 0.75 * person.lip * tight * bow
    lower_lip = person.lip * (tight + 0.5 * au[16] + 0.2 * au[17]) * bow
    lips = part.inside(np.minimum(y - top + upper_lip, bottom + lower_lip - y)) * within
    x = part.x
    if person.beard > 0:  # It does not cover the lips.
        hairy = _blob(x, part.y - person.mouth_y - lower - 0.2, 0.85, 0.7)
        hairy = np.minimum(1, 2 * (hairy + _blob(x, part.y - person.mouth_y + 0.12, 0.4, 0.1)))
        part.shade(person.beard * hairy * (1 - lips))
    part.paint(0.9 * lips, person.lip_tone)
    opening = part.inside(np.minimum(y - top, bottom - y)) * within * np.minimum(1, 20 * gap)
    part.paint(opening, 0.06)
    teeth = np.minimum(0.1, 0.6 * (bottom - top))
    part.paint(opening * part.inside(top + teeth - y), 0.9)
    seam = _ridge(y - (top + bottom) / 2, 0.04) * (abs(across) < 1)
    part.paint(0.85 * seam * (1 - opening), 0.3 * person.lip_tone)
    # Below the lip: its shadow, and the ball of the chin, which the chin raiser pushes up.
    y = part.y - person.mouth_y - lower
    part.shade((0.18 + 0.2 * au[17]) * _blob(x, y - 0.2, 0.25, 0.08))
    for dx in (-0.12, 0.0, 0.12) if au[17].any() else ():
        part.shade(1.2 * person.wrinkles * au[17] * _blob(x - dx, y - 0.34, 0.05, 0.06))


def _folds(canvas: _Canvas, person: Person, side: int, au: _ActionUnits) -> None:
    """The fold from the nose to the corner of the mouth, and the line outside that corner."""
    part = canvas.crop_half(side, 0.1, 0.85, 0, 1.2)
    x, y = part.x, part.y
    out = person.mouth_width + 0.08 + 0.12 * au[12] + 0.1 * au[20]
    end = person.mouth_y - 0.1 - 0.05 * au[12]
    fold = _line(x, y, person.nose_width + 0.04, person.nose_y - 0.1, out, end, 0.05)
    part.shade((0.06 + person.wrinkles * (0.75 * au[12] + 0.6 * au[9] + 0.25 * au[6])) * fold)
    corner, down = person.mouth_width * (1 + 0.1 * au[20]), person.mouth_y + 0.14
    line = _line(x, y, corner, down, corner + 0.06, down + 0.18, 0.045)
    part.shade(person.wrinkles * (au[15] + 0.5 * au[20]) * line)


def _hair(canvas: _Canvas, person: Person) -> None:
    skull = _ellipse(canvas.u, canvas.v, 1.04 * person.width, 1.04 * _CROWN)
    edge = person.hairline_bend * canvas.x * canvas.x - person.hairline
    canvas.paint(canvas.inside(np.minimum(skull, edge - canvas.y)), person.hair)


def _nothing(canvas: _Canvas, person: Person, scene: Scene) -> None:
    pass


def _glasses(canvas: _Canvas, person: Person, scene: Scene) -> None:
    part = canvas.crop(-1, 1, -0.65, 0.25)
    x, y = abs(part.x) - person.eye_x - 0.02, part.y - person.eye_y - 0.03
    x, y = abs(x / 0.34), abs(y / 0.25)
    rim = 0.27 * (1 - np.cbrt(x * x * x + y * y * y))
    part.paint(0.12 * part.inside(rim), 1 - scene.occluder_tone)
    bridge = np.minimum(0.03 - abs(part.y - person.eye_y + 0.02), -rim - 0.02)
    bridge = np.minimum(bridge, person.eye_x - abs(part.x))
    part.paint(part.inside(np.maximum(0.03 - abs(rim), bridge)), scene.occluder_tone)


def _fringe(canvas: _Canvas, person: Person, scene: Scene) -> None:
    """Hair that falls over one brow."""
    x = canvas.x * scene.occluder_side
    skull = _ellipse(canvas.u, canvas.v, 1.04 * person.width, 1.04 * _CROWN)
    edge = person.brow_y - 0.05 + 0.55 * np.clip(x, -0.3, 0.8)
    canvas.paint(canvas.inside(np.minimum(skull, edge - canvas.y)), person.hair)


def _hand(canvas: _Canvas, person: Person, scene: Scene) -> None:
    """Fingers over one corner of the mouth."""
    x, y = canvas.x * scene.occluder_side, canvas.y
    for finger in range(4):
        x0, y0 = 0.5 - 0.09 * finger, 0.34 + 0.15 * finger
        ridge = _line(x, y, x0, y0, x0 + 1, y0 + 0.75, 0.11)
        canvas.paint(np.minimum(1, 4 * ridge), person.skin * (0.55 + 0.4 * ridge))


def _scarf(canvas: _Canvas, person: Person, scene: Scene) -> None:
    """A scarf up to below the lower lip."""
    below = canvas.y - person.mouth_y - 0.42 - 0.1 * canvas.x * canvas.x
    canvas.paint(canvas.inside(below) * (abs(canvas.u) < 1.3), scene.occluder_tone)
    canvas.shade(0.3 * _ridge(below - 0.2, 0.1) * (abs(canvas.u) < 1.3))


_OCCLUDERS = {
    "none": _nothing,
    "glasses": _glasses,
    "fringe": _fringe,
    "hand": _hand,
    "scarf": _scarf,
}
