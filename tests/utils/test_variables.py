from pathlib import Path

import pytest
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results

from nnunet_cmc.commands.doctor import folders
from nnunet_cmc.commands.main import main
from nnunet_cmc.utils.variables import dataset_folder, require_set


@pytest.mark.parametrize("variable", [nnUNet_raw, nnUNet_preprocessed, nnUNet_results])
def test_a_folder_that_no_shell_has_expanded(variable, monkeypatch):
    monkeypatch.setenv("HOME", "/people/me")
    name = variable.env_var_name
    for value in ("~/data", "$HOME/data", "${HOME}/data"):
        monkeypatch.setenv(name, value)
        with pytest.raises(ValueError) as caught:
            require_set(variable)
        assert str(caught.value) == f"{name} is {value}, which nnU-Net does not expand: export {name}=/people/me/data."
    for value in ("data", "../data", "/data/a~b"):
        monkeypatch.setenv(name, value)
        require_set(variable)
    monkeypatch.setenv(name, "")
    with pytest.raises(ValueError, match=f"{name} is not set: set this variable"):
        require_set(variable)


@pytest.mark.parametrize("value", ["~nobody-of-this-name/raw", "$NO_SUCH_VARIABLE/raw", "${NO_SUCH_VARIABLE}"])
def test_a_home_or_a_variable_that_there_is_not(value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("nnUNet_raw", value)
    with pytest.raises(
        ValueError, match="names a home folder or a variable that does not exist: export nnUNet_raw with"
    ):
        require_set(nnUNet_raw)
    assert "that does not exist: export nnUNet_raw with" in next(folders()).finding
    Path(value).mkdir(parents=True)  # then it is the name of a folder
    require_set(nnUNet_raw)


def test_commands_say_so(nnunet_folders, monkeypatch, capsys):
    monkeypatch.chdir(nnunet_folders)
    monkeypatch.setenv("nnUNet_raw", "~/raw")
    for command in (["split", "-d", "1", "--folds", "2"], ["inspect", "-d", "1", "-o", "out"]):
        assert main(command) == 1
        assert "nnUNet_raw is ~/raw, which nnU-Net does not expand: export nnUNet_raw=" in capsys.readouterr().err
    assert not Path("~").exists()


def test_a_dataset_that_there_is_not_or_is_twice(tmp_path, monkeypatch):
    for variable in (nnUNet_raw, nnUNet_preprocessed, nnUNet_results):
        monkeypatch.setenv(variable.env_var_name, str(tmp_path))
    for name in ("Dataset007_A", "Dataset007_B", "Dataset008_C"):
        (tmp_path / name).mkdir()
    assert dataset_folder(nnUNet_raw, 8) == tmp_path / "Dataset008_C"
    with pytest.raises(ValueError, match=f"There is no dataset 9 in {tmp_path}: give the number or whole name"):
        dataset_folder(nnUNet_raw, 9)
    with pytest.raises(ValueError, match=f"There are several datasets 7 in {tmp_path} and .*: give the whole name"):
        dataset_folder(nnUNet_raw, 7)
