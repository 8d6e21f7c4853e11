"""Draw the pictures of the pages, from synthetic inputs or a stereo pair of photographs.

    python docs/pictures.py [FOLDER]

The default folder is docs/pictures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import matplotlib
import torch
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch
from torch import Tensor, nn
from torch.nn.functional import normalize, unfold

import pixelkernels as pk
from examples.demo.photos import SIDE, stereo_pair

FOLDER = Path(__file__).resolve().parent / "pictures"
# legible on white and on black: the background is transparent
GREY = "#80868b"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titlecolor": GREY,
    "axes.edgecolor": GREY,
    "axes.facecolor": "#f4f4f4",
    "xtick.color": GREY,
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "image.interpolation": "nearest",
    "savefig.dpi": 120,
}
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377")


def regions() -> Figure:
    height, width, count = 48, 64, 4
    labels = _cells(height, width, count)
    features = _of_labels(labels, 2, 0.55)[None].requires_grad_()
    before = features.detach().clone()
    optimizer = torch.optim.SGD([features], lr=60.0)
    for _ in range(60):
        optimizer.zero_grad()
        pk.discriminative_loss(features, labels[None], count).backward()
        optimizer.step()
    figure, axes = _panels()
    _labels(axes[0], labels, count)
    axes[0].set_title("labels")
    for ax, x, title in (
        (axes[1], before, "region_stats"),
        (axes[2], features.detach(), "trained"),
    ):
        stats = pk.region_stats(x, labels[None], count)
        for r, colour in enumerate(COLOURS[:count]):
            across, up = x[0][:, labels == r][:, ::3]
            ax.scatter(across.numpy(), up.numpy(), s=4, color=colour, alpha=0.6, linewidths=0)
            centre = stats.mean[0, r].tolist()
            ax.plot(*centre, "k+")
            radius = float(stats.variance[0, r].sqrt())
            ax.add_patch(matplotlib.patches.Circle(centre, radius, fill=False, linewidth=0.8))
        ax.set(
            title=title, xticks=[], yticks=[], aspect="equal", xlim=(-16 / 3, 16 / 3), ylim=(-4, 4)
        )
    weights = (labels == 0).float()[None]
    _map(axes[3], pk.background_distance(before, weights)[0], "background_distance", "magma")
    return figure


def distance() -> Figure:
    height, width = 72, 96
    rows, columns = torch.arange(height)[:, None], torch.arange(width)
    target = ((rows - 38) / 24) ** 2 + ((columns - 46) / 30) ** 2 < 1
    target &= ~((rows < 34) & (columns > 50))
    generator = torch.Generator().manual_seed(4)
    points, kinds = pk.simulate_clicks(
        target[None], 4, 5, strategy="background", band=22, generator=generator
    )
    figure, axes = _panels()
    _map(axes[0], pk.distance_transform(target), "distance_transform", "viridis")
    for ax, options in (
        (axes[1], {"encoding": "euclidean", "truncate": 40.0}),
        (axes[2], {"encoding": "tanh", "radius": 40.0}),
    ):
        maps = pk.click_maps(points, kinds, (height, width), **options)
        _map(ax, maps[0, 0], f"click_maps, {options['encoding']}", "viridis")
        ax.contour(target.numpy(), [0.5], colors="white", linewidths=0.8)
        for kind, marker in ((1, "x"), (0, ".")):
            row, column = points[0][kinds[0] == kind].unbind(1)
            ax.plot(column.numpy(), row.numpy(), marker, color="white", markersize=5)
    prediction = target.roll((-5, 9), (0, 1))
    click = pk.next_click(prediction[None], target[None])
    errors = (target & ~prediction).byte() + 2 * (prediction & ~target).byte()
    colours = ListedColormap(["#eeeeee", COLOURS[0], COLOURS[1]])
    axes[3].imshow(errors.numpy(), cmap=colours, vmin=0, vmax=2)
    axes[3].contour(target.numpy(), [0.5], colors="black", linewidths=0.8)
    row, column = click.points[0].tolist()
    axes[3].plot(column, row, "x", color="black", markersize=6)
    axes[3].set(title="next_click: missed, wrong", xticks=[], yticks=[])
    return figure


def similarity() -> Figure:
    height, width, count = 60, 80, 4
    labels = _cells(height, width, count)
    features = _of_labels(labels, 12, 0.6)[None]
    moved = labels.roll((9, 14), (0, 1))
    query = _of_labels(moved, 12, 0.9, seed=7)[None]
    generator = torch.Generator().manual_seed(0)
    reference, kinds = pk.sample_reference(
        features, labels[None], count, num_per_class=20, generator=generator
    )
    found = pk.label_transfer(query, reference, kinds, count, metric="cosine", reduce="mean")
    prior = pk.prior_mask(query, features, (labels == 2).float()[None])
    drawn = (features[0, :, :, :, None] == reference[0, :, None, None]).all(0).any(-1).nonzero()
    figure, axes = _panels()
    _labels(axes[0], labels, count)
    axes[0].plot(*drawn.flip(1).T.numpy(), "k.", markersize=3)
    axes[0].set_title("sample_reference")
    low, high = query[0, :3].amin(), query[0, :3].amax()
    axes[1].imshow(((query[0, :3] - low) / (high - low)).movedim(0, -1).numpy())
    axes[1].set(title="the next image", xticks=[], yticks=[])
    _labels(axes[2], found.labels[0], count)
    axes[2].set_title("label_transfer")
    _map(axes[3], prior[0], "prior_mask", "magma")
    return figure


def contrast() -> Figure:
    """A small network on one photograph, whose classes are layers of its measured depth."""
    pair = stereo_pair()
    photo = torch.from_numpy(pair.right.pixels.copy()).movedim(-1, 0)[None] / 255
    disparity = (torch.from_numpy(pair.columns) - torch.arange(SIDE)).float()
    bounds = disparity[disparity >= 0].quantile(torch.tensor([0.4, 0.75]))
    labels = torch.bucketize(disparity, bounds)
    labels[torch.from_numpy(pair.columns) < 0] = -1
    photo, labels = photo[:, :, ::2, ::2], labels[None, ::2, ::2].contiguous()
    place = torch.linspace(-1, 1, SIDE // 2)
    given = torch.cat((photo, torch.stack(torch.meshgrid(place, place, indexing="ij"))[None]), 1)
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(
                nn.Conv2d(5, 32, 3, padding=1),
                nn.ReLU(),
                nn.Conv2d(32, 32, 3, padding=2, dilation=2),
            ),
            *(nn.ReLU(), nn.Conv2d(32, 3, 1)),
        )
        optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
        shown = []
        for step in range(121):
            embedding = normalize(network(given), dim=1)
            if step % 120 == 0:
                shown.append(embedding[0].detach())
            nowhere = torch.full_like(labels, -1)  # all pixels are hard
            anchors = pk.sample_anchors(embedding, labels, nowhere, max_samples=600, max_views=200)
            loss = pk.pixel_contrast_loss(*anchors, temperature=0.2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    figure, axes = _panels()
    axes[0].imshow(photo[0].movedim(0, -1).numpy())
    axes[0].set(title="a photograph", xticks=[], yticks=[])
    _labels(axes[1], labels[0].where(labels[0] >= 0, 3), 4)
    axes[1].set_title("its depth, in layers")
    for axis, values, title in zip(axes[2:], shown, ("before", "after training"), strict=True):
        axis.imshow(((values + 1) / 2).movedim(0, -1).numpy())
        axis.set(title=f"embedding {title}", xticks=[], yticks=[])
    return figure


def matches() -> Figure:
    """Patches of two photographs of one scene."""
    pair, size, step = stereo_pair(), 11, 4
    views = [torch.from_numpy(x.pixels.copy()) for x in (pair.left, pair.right)]
    described = []
    for view in views:
        patches = unfold(view.movedim(-1, 0)[None] / 255, size, stride=step)
        described.append(normalize(patches - patches.mean(1, keepdim=True), dim=1))
    found = pk.mutual_matches(*described, temperature=0.02, threshold=0.4)
    columns = (SIDE - size) // step + 1
    (row, column), (other_row, other) = (
        (x // columns * step + size // 2, x % columns * step + size // 2)
        for x in (found.i, found.j)
    )
    truth = torch.from_numpy(pair.columns)[other_row, other]
    right = (truth >= 0) & ((truth - column).abs() <= step) & ((row - other_row).abs() <= step)
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    axes = figure.subplots(1, 2)
    for axis, view, title in zip(axes, views, ("left", "right"), strict=True):
        axis.imshow(view.numpy())
        axis.set(title=f"{title} view", xticks=[], yticks=[])
    for k in range(0, len(found.i), 4):
        line = ConnectionPatch(
            (int(column[k]), int(row[k])),
            (int(other[k]), int(other_row[k])),
            coordsA=axes[0].transData,
            coordsB=axes[1].transData,
            color=COLOURS[2] if right[k] else COLOURS[1],
            linewidth=0.6,
        )
        figure.add_artist(line)
    return figure


def triplet() -> Figure:
    height, width, rows = 40, 60, 5
    labels = (_cells(height, width, 3, seed=5) == 1).long()
    mask = labels.bool()[None]
    features = _of_labels(labels, 4, 0.8)[None].requires_grad_()
    before = features.detach().clone()
    optimizer = torch.optim.SGD([features], lr=100.0)
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        optimizer.zero_grad()
        loss = pk.is_triplet_loss(features, mask, num_samples=400, generator=generator)
        loss.backward()
        optimizer.step()
    sides = (mask, mask, ~mask, ~mask)
    sets = [pk.sample_pixels(side, rows, generator=generator)[0] for side in sides]
    figure, axes = _panels()
    points = [torch.stack([s % width, s // width], 1).tolist() for s in sets]
    for ax, (anchor, positive, negative), colour, title in (
        (axes[0], (0, 1, 2), COLOURS[0], "anchors in the object"),
        (axes[1], (2, 3, 1), COLOURS[1], "anchors outside"),
    ):
        ax.imshow(mask[0].numpy(), cmap=ListedColormap(["#f3f3f3", "#d9e3ee"]))
        for own, near, far in zip(points[anchor], points[positive], points[negative], strict=True):
            ax.plot(*zip(own, near, strict=True), "-", color=colour, linewidth=1.4)
            ax.plot(*zip(own, far, strict=True), "--", color=colour, linewidth=0.8)
            ax.plot(*own, ".", color=colour, markersize=9)
        ax.set(title=title, xticks=[], yticks=[])
    many = [pk.sample_pixels(side, 600, generator=generator)[0] for side in sides[:3]]
    for ax, x, title in ((axes[2], before, "before"), (axes[3], features.detach(), "trained")):
        anchor, positive, negative = (x[0].flatten(1)[:, index[:600]] for index in many)
        for other, name, colour in ((positive, "positive", 2), (negative, "negative", 1)):
            distance = (anchor - other).norm(dim=0).numpy()
            ax.hist(distance, 40, range=(0, 8), color=COLOURS[colour], alpha=0.6, label=name)
        ax.set(title=f"distances, {title}", yticks=[])
        ax.legend(frameon=False)
    return figure


DRAW: dict[str, Callable[[], Figure]] = {
    "regions": regions,
    "distance": distance,
    "similarity": similarity,
    "contrast": contrast,
    "matches": matches,
    "triplet": triplet,
}


def write(folder: Path) -> list[Path]:
    folder.mkdir(exist_ok=True)
    paths = []
    for name, draw in DRAW.items():
        paths.append(folder / f"{name}.png")
        with matplotlib.rc_context(STYLE):
            # without matplotlib's version the bytes depend on the drawing alone
            draw().savefig(paths[-1], metadata={"Software": None})
    return paths


def _panels() -> tuple[Figure, list[Axes]]:
    """Two by two: a phone shows no more beside each other."""
    figure = Figure(figsize=(6.4, 5.2), layout="constrained")
    return figure, list(figure.subplots(2, 2).flat)


def _map(ax: Axes, values: Tensor, title: str, colours: str) -> None:
    ax.imshow(values.numpy(), cmap=colours)
    ax.set(title=title, xticks=[], yticks=[])


def _labels(ax: Axes, labels: Tensor, count: int) -> None:
    ax.imshow(labels.numpy(), cmap=ListedColormap(COLOURS[:count]), vmin=-0.5, vmax=count - 0.5)
    ax.set(xticks=[], yticks=[])


def _cells(height: int, width: int, count: int, seed: int = 1) -> Tensor:
    """Labels [H, W]: the index of the nearest of random centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.rand(count, 2, generator=generator) * torch.tensor([height, width])
    pixels = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    distances = (pixels[:, None] - centres).square().sum(-1)
    return distances.argmin(1).view(height, width)


def _of_labels(labels: Tensor, channels: int, noise: float, seed: int = 3) -> Tensor:
    """Features [C, H, W] with a centre per label, plus noise. The centres ignore the seed."""
    count = int(labels.max()) + 1
    centres = torch.randn(count, channels, generator=torch.Generator().manual_seed(2))
    generator = torch.Generator().manual_seed(seed)
    return centres[labels].movedim(-1, 0) + noise * torch.randn(
        channels, *labels.shape, generator=generator
    )


if __name__ == "__main__":
    for path in write(Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER):
        print(path)
