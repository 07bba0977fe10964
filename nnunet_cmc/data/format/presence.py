"""Which modalities a case has, and whose scan it is: the ``cmc`` key of ``dataset.json``.

The key reads ``{"version": 1, "present_channels": {case: [0]}, "subjects": {case: id}}``. Where it is silent about a
case, a channel is absent exactly if all its voxels are zero, and the case is its own subject. It may also list the
names of the ``modalities``, where ``channel_names`` say to nnU-Net how to normalise them: ``["CT early", "CT late"]``.
"""

from typing import Any

VERSION = 1


def channel_names(dataset_json: dict) -> list[str]:
    """Return the names of the modalities, in channel order: the ``cmc`` key's, else those of ``channel_names``.

    nnU-Net normalises by the name, so that two phases of contrast may both be called CT there. Without names in the
    ``cmc`` key, these are ``CT 0`` and ``CT 1``.

    Raises:
        ValueError: ``channel_names`` is missing, empty or not numbered 0, 1, 2, ..., or the modalities do not fit it.
    """
    names = dataset_json.get("channel_names")
    if not isinstance(names, dict) or not names or sorted(names) != sorted(str(i) for i in range(len(names))):
        raise ValueError(
            f'dataset.json must have "channel_names" numbered "0", "1", ... but has {names!r}: '
            "name every modality there, in the order of the files' _0000, _0001, ..."
        )
    cmc = dataset_json.get("cmc")
    if isinstance(cmc, dict) and "modalities" in cmc:
        own = cmc["modalities"]
        texts = isinstance(own, list) and all(isinstance(name, str) and name for name in own)
        if not texts or len(own) != len(names) or len(set(own)) < len(own):
            raise ValueError(
                f'"modalities" in the cmc key of dataset.json must be a list of {len(names)} different names, one for '
                f"each of channel_names, but is {own!r}: correct it, or remove it."
            )
        return own
    listed = [str(names[str(i)]) for i in range(len(names))]
    return [f"{name} {i}" if listed.count(name) > 1 else name for i, name in enumerate(listed)]


def present_channels(dataset_json: dict, case: str) -> tuple[int, ...] | None:
    """Return the indices of the modalities that ``case`` was scanned in, rising; None where this is not stated.

    Raises:
        ValueError: the ``cmc`` key is malformed, of an unknown version, or names a channel that does not exist.
    """
    channels = _entries(dataset_json, "present_channels").get(case)
    return None if channels is None else _checked_channels(case, channels, len(channel_names(dataset_json)))


def present_channels_of_all(dataset_json: dict) -> dict[str, tuple[int, ...]]:
    """Map each case of which it is stated to what :func:`present_channels` returns."""
    count, entries = len(channel_names(dataset_json)), _entries(dataset_json, "present_channels")
    return {
        case: _checked_channels(case, channels, count) for case, channels in entries.items() if channels is not None
    }


def subjects_of_all(dataset_json: dict) -> dict[str, str]:
    """Map each case of which it is stated to what :func:`subject_of` returns."""
    return {case: _checked_subject(case, name) for case, name in _entries(dataset_json, "subjects").items()}


def _checked_channels(case: str, channels: Any, count: int) -> tuple[int, ...]:
    integers = isinstance(channels, list) and all(isinstance(c, int) and not isinstance(c, bool) for c in channels)
    if not integers or not channels or len(set(channels)) < len(channels):
        raise ValueError(
            f'Case {case}: "present_channels" in the cmc key of dataset.json must be a list of different channel '
            f"numbers, such as [0], but is {channels!r}."
        )
    if min(channels) < 0 or max(channels) >= count:
        raise ValueError(
            f'Case {case}: "present_channels" in the cmc key of dataset.json is {channels}, '
            f"but the dataset has {count} channel(s), numbered from 0: correct the list or channel_names."
        )
    return tuple(sorted(channels))


def listed_cases(dataset_json: dict) -> set[str]:
    """Return the cases that the ``cmc`` key names, of whatever part. ValueError: see :func:`subject_of`."""
    return {case for key in ("present_channels", "subjects") for case in _entries(dataset_json, key)}


def subject_of(dataset_json: dict, case: str) -> str:
    """Return the identifier of the patient whose scan ``case`` is; scans of one patient share it.

    Raises:
        ValueError: the ``cmc`` key is malformed or of an unknown version.
    """
    return _checked_subject(case, _entries(dataset_json, "subjects").get(case, case))


def _checked_subject(case: str, subject: Any) -> str:
    if not isinstance(subject, str):
        raise ValueError(f'Case {case}: its entry of "subjects" in dataset.json must be a text, but is {subject!r}.')
    return subject


def _entries(dataset_json: dict, key: str) -> dict[str, Any]:
    """Return the part ``key`` of the ``cmc`` key, an empty one where ``dataset.json`` has none."""
    cmc = dataset_json.get("cmc", {"version": VERSION})
    if not isinstance(cmc, dict) or cmc.get("version") != VERSION:
        found = cmc.get("version") if isinstance(cmc, dict) else cmc
        raise ValueError(
            f"The cmc key of dataset.json has version {found!r}, but this nnunet_cmc reads version {VERSION}: "
            "convert the dataset again or install the nnunet_cmc that wrote it."
        )
    entries = cmc.get(key, {})
    if not isinstance(entries, dict):
        raise ValueError(f'"{key}" in the cmc key of dataset.json must map cases to values, but is {entries!r}.')
    return entries
