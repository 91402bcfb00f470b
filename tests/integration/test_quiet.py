"""Nobody is called that was not asked for, and no secret of the environment comes to lie on the disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.tiny_run import tiny_config

# imported by every Python process before anything else
WATCH = """
import os, socket

def watched(does, family_of):
    def refused(*args, **kwargs):
        if family_of(args) == socket.AF_UNIX:
            return does(*args, **kwargs)
        with open(os.environ["CALLED"], "a") as file:
            print(args, file=file)
        raise OSError("no network")
    return refused

socket.socket.connect = watched(socket.socket.connect, lambda args: args[0].family)
socket.socket.connect_ex = watched(socket.socket.connect_ex, lambda args: args[0].family)
socket.getaddrinfo = watched(socket.getaddrinfo, lambda args: None)
"""
SECRETS = {
    "WANDB_API_KEY": "0" * 8 + "wandb" * 6,
    "HF_TOKEN": "hf_secret",
    "AWS_SECRET_ACCESS_KEY": "aws/secret",
}


@pytest.mark.slow
def test_a_training_calls_nobody_and_writes_no_secret(synth_root: Path, tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    (tmp_path / "site/sitecustomize.py").write_text(WATCH)
    unset = ("NO_ALBUMENTATIONS_UPDATE", "HF_HUB_OFFLINE", "WANDB_MODE")
    environment = {name: value for name, value in os.environ.items() if name not in unset} | SECRETS
    environment |= {"PYTHONPATH": str(tmp_path / "site"), "CALLED": str(tmp_path / "called")}
    environment |= {"ABAW_CACHE": str(tmp_path / "cache"), "HOME": str(tmp_path)}

    def run(*words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([sys.executable, *words], env=environment, capture_output=True, timeout=600)

    assert run("-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:9')").returncode
    assert (tmp_path / "called").exists()  # it would be seen
    (tmp_path / "called").unlink()
    said = b""
    says = {"enable_progress_bar": ..., "enable_model_summary": ..., "log_every_n_steps": ...}
    configs = tiny_config(tmp_path, data={"workers": 2}, trainer={"limit_train_batches": 3} | says)
    for subcommand in ("fit", "predict"):
        words = [subcommand, *configs, f"--data.root={synth_root}", f"--run={tmp_path / 'run'}"]
        done = run("-m", "abaw", *words)
        assert done.returncode == 0, done.stderr.decode()
        said += done.stdout + done.stderr
    assert not (tmp_path / "called").exists(), (tmp_path / "called").read_text()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.suffix == ".ckpt" for path in files)
    for secret in SECRETS.values():
        assert secret.encode() not in said
        assert [path for path in files if secret.encode() in path.read_bytes()] == []
