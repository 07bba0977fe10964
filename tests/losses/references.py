"""CSC and CAC in numpy, as independent references: plain loops over cases, pairs, channels, classes and voxels."""

from itertools import combinations

import numpy as np

GRID = 16  # cells of an occupancy map along an axis


def dice(p, q):
    return 2 * (p * q).sum() / ((p * p).sum() + (q * q).sum())


def case_dice(p, q):
    """p, q (K, D, H, W): over foreground classes that either puts above chance somewhere."""
    classes = [k for k in range(1, len(p)) if max(p[k].max(), q[k].max()) > 1 / len(p)]
    return np.mean([dice(p[k], q[k]) for k in classes]) if classes else 0.0


def in_cells(x):
    """The mean over blocks of voxels, of which 16 lie along an axis that is a multiple of 16 and longer."""
    for axis in (-3, -2, -1):
        cells = min(x.shape[axis], GRID)
        x = np.stack([part.mean(axis) for part in np.split(x, cells, axis)], axis)
    return x


def case_overlap(p, q):
    """As `case_dice`, of the means over cells."""
    classes = [k for k in range(1, len(p)) if max(p[k].max(), q[k].max()) > 1 / len(p)]
    return np.mean([dice(in_cells(p[k]), in_cells(q[k])) for k in classes]) if classes else 0.0


def cross_entropies(s, temperature, targets=None):
    """Of the rows and of the columns, over the targets (all, if None)."""
    e = np.exp(np.asarray(s) / temperature)
    targets = range(len(e)) if targets is None else targets
    return np.mean([-np.log(e[i, i] / e[i].sum()) / 2 - np.log(e[i, i] / e[:, i].sum()) / 2 for i in targets])


def cac_printed(p, present):
    losses = []
    for a, b in combinations(range(p.shape[1]), 2):
        s = [case_dice(row[a], row[b]) for row, has in zip(p, present, strict=True) if has[a] and has[b]]
        if s:
            losses.append(sum(-np.log(np.exp(x) / np.sum(np.exp(s))) for x in s))
    return np.mean(losses)


def cac_paired(p, present, temperature):
    losses = []
    for a, b in combinations(range(p.shape[1]), 2):
        rows = [row for row, has in zip(p, present, strict=True) if has[a] and has[b]]
        if rows:
            s = np.array([[case_overlap(x[a], y[b]) for y in rows] for x in rows])
            losses.append(cross_entropies(s, temperature) + 1 - np.mean([case_dice(x[a], x[b]) for x in rows]))
    return np.mean(losses)


def cac_occupancy(p, present, positions, m):
    """{cell: mean probability of every class} over the voxels that fall into it"""
    cells = {}
    for row in np.flatnonzero(present[:, m]):
        for voxel in np.ndindex(p.shape[3:]):
            u = positions[(row, m, slice(None), *voxel)]
            if np.all(u >= 0) and np.all(u <= 1):  # False for NaN
                cell = tuple(min(int(x * GRID), GRID - 1) for x in u)
                cells.setdefault(cell, []).append(p[(row, m, slice(None), *voxel)])
    return {cell: np.mean(values, 0) for cell, values in cells.items()}


def cac_unpaired(occupancies, classes, temperature):
    def as_map(occupancy):
        result = np.zeros((classes, GRID, GRID, GRID))
        for cell, value in occupancy.items():
            result[(slice(None), *cell)] = value
        return result

    losses = []
    for a, b in combinations([as_map(occupancy) for occupancy in occupancies], 2):
        known = [0] + [k for k in range(1, classes) if a[k].max() > 0.01 and b[k].max() > 0.01]
        s = [[dice(a[k], b[j]) for j in known] for k in known]
        losses.append(cross_entropies(s, temperature, range(1, len(known))))
    return np.mean(losses)


def cosine(u, v):
    return np.dot(u, v) / np.sqrt(np.dot(u, u) * np.dot(v, v))


def cosine_matrix(a, b):
    return np.array([[cosine(u, v) for v in b] for u in a])


def csc_printed(features, present):
    losses = []
    for f, has in zip(features, present, strict=True):
        for a, b in combinations(np.flatnonzero(has), 2):
            s = [cosine(u.ravel(), v.ravel()) for u, v in zip(f[a], f[b], strict=True)]
            losses.append(sum(-np.log(np.exp(x) / np.sum(np.exp(s))) for x in s))
    return np.mean(losses)


def csc_paired(features, present, temperature):
    losses = []
    for f, has in zip(features, present, strict=True):
        for a, b in combinations(np.flatnonzero(has), 2):
            ua, ub = ([u.ravel() - u.mean() for u in f[m]] for m in (a, b))
            losses.append(cross_entropies(cosine_matrix(ua, ub), temperature))
    return np.mean(losses)


def csc_prototypes(features, present, weights):
    """{modality: {class: prototype}}"""
    prototypes = {}
    for m in range(features.shape[1]):
        rows = np.flatnonzero(present[:, m])
        prototypes[m] = {}
        for k in range(weights.shape[2]):
            w = weights[rows, m, k].ravel()
            f = np.stack([features[rows, m, c].ravel() for c in range(features.shape[2])], 1)
            if w.sum() > 0:
                prototypes[m][k] = (w[:, None] * f).sum(0) / w.sum()
    return prototypes


def csc_unpaired(prototypes, temperature):
    losses = []
    for a, b in combinations(prototypes, 2):
        classes = sorted(set(prototypes[a]) & set(prototypes[b]))
        s = cosine_matrix([prototypes[a][k] for k in classes], [prototypes[b][k] for k in classes])
        losses.append(cross_entropies(s, temperature))
    return np.mean(losses)
