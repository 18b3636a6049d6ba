"""What goes along with a job, and that no key, token or password does, by whatever name, place, link or case."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner

from arat_ray.cli import main
from arat_ray.cluster.jobs import keys, package
from arat_ray.storage.address import without_login
from tests.launchers.filled import ROOT

Write = Callable[..., Path]


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with an experiment and some code beside it."""
    folder = tmp_path / "here"
    (folder / "lib" / "results").mkdir(parents=True)
    for name in ("layers.yaml", "other.yaml", "lib/x.py", "lib/results/y.py"):
        (folder / name).write_text("seed: 1\n")
    return folder


def packed(here: Path, *, include: Sequence[str] = (), exclude: Sequence[str] = ()) -> set[str]:
    return set(package.pack(here / "layers.yaml", folder=here, include=include, exclude=exclude).files)


def put(folder: Path, name: str, content: str | bytes = "seed: 1\n") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else spelled(content))
    return path


def spelled(text: str) -> bytes:
    """Secrets of nobody, spelled so that this file does not hold them."""
    return text.replace("·", "").encode()


ALL = {"layers.yaml", "other.yaml", "lib/x.py", "lib/results/y.py"}


def test_the_experiment_goes_alone_unless_more_is_asked_for(here: Path) -> None:
    put(here, "id_ed25519")
    assert set(package.pack(here / "layers.yaml").files) == {"layers.yaml"}
    assert set(package.pack(here / "layers.yaml", include=["lib"]).files) == {
        "layers.yaml",
        "lib/x.py",
        "lib/results/y.py",
    }
    assert set(package.pack(here / "layers.yaml", include=["other.yaml", "lib/x.py"]).files) == {
        "layers.yaml",
        "other.yaml",
        "lib/x.py",
    }


def test_a_folder_goes_without_results_data_archives_and_hidden_names(here: Path) -> None:
    for name in (".git/config", ".ssh/id_rsa", ".env", "results/a", "data/train", "lib/p.pt", "k.zip", "k.tgz", "k.7z"):
        put(here, name, b"x")
    assert packed(here) == ALL
    assert packed(here, exclude=["ot*", "lib/results"]) == {"layers.yaml", "lib/x.py"}
    assert packed(here, exclude=["./lib/results/", "other.yaml"]) == {"layers.yaml", "lib/x.py"}
    assert packed(here, include=["data/train", ".env"]) == ALL | {"data/train", ".env"}


SECRET_NAMES = (
    *("key.pem", "KEY.PEM", "server.pem.bak", "server.pem~", "tls.key", "api.p12", "a.pfx", "a.jks", "a.keystore"),
    *("id_rsa", "id_ed25519", "ID_ED25519", "id_ecdsa_sk", "id_rsa (copy)", "deploy_rsa", "putty.ppk", "ssh_host_key"),
    *("credentials.json", "Credentials.JSON", "credentials", "aws_credentials.csv", "client_secret_1.json"),
    *("application_default_credentials.json", "service-account.json", "lab-firebase-adminsdk-1.json", "gcp-key.json"),
    *(
        "auth_token",
        "AUTH_TOKEN",
        "authToken.txt",
        "token",
        "hf_token.txt",
        "mytoken",
        "accessTokens.json",
        "api.token",
    ),
    *(
        "kubeconfig",
        "kubeconfig.yaml",
        "KubeConfig",
        "prod.kubeconfig",
        "kube.config",
        "netrc",
        "_netrc",
        "pgpass.conf",
    ),
    *(
        "prod.env",
        "env.production",
        "env",
        "envrc",
        "rclone.conf",
        "boto",
        "boto.cfg",
        "s3cfg",
        "my.cnf",
        "kaggle.json",
    ),
    *("terraform.tfstate", "terraform.tfstate.backup", "prod.tfvars", "secrets.yaml", "secrets.py", "db-password.txt"),
    *("passwords.xlsx", "passwd", "htpasswd", "vault.yml", "a.kdbx", "login.keychain-db", "krb5.keytab", "client.ovpn"),
    *("cookies.txt", "cookies.sqlite", "wallet.dat", "api_keys.py", "secring.gpg", "msal_token_cache.bin", "dockercfg"),
    *("ssh/config", "secrets/db.txt", "conf/Credentials/x.txt", "conf/kube/config", "\uff4bey.\uff50em"),
)


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_file_that_is_called_like_a_secret_goes_only_when_it_is_named(name: str, here: Path) -> None:
    put(here, name)
    with pytest.raises(ValueError, match="nothing was sent, for this looks secret: ") as refused:
        packed(here)
    assert name in str(refused.value)
    assert "--include" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert packed(here, exclude=[name]) == ALL
    assert packed(here, include=[name]) == ALL | {name}


@pytest.mark.parametrize("name", ["x/key.pem", "a b/id_rsa"])
def test_naming_the_folder_of_a_key_does_not_name_the_key(name: str, here: Path) -> None:
    put(here, name)
    with pytest.raises(ValueError, match="looks secret"):
        package.pack(here / "layers.yaml", include=[name.partition("/")[0]])
    with pytest.raises(ValueError, match="looks secret"):
        packed(here, include=["."])
    with pytest.raises(ValueError, match="there is no such file"):
        packed(here, include=["*.pem"])


SECRET_CONTENTS = {
    "PKCS8": "x\n-----BEGIN· PRIVATE KEY-----\nMII\n",
    "RSA": "-----BEGIN RSA· PRIVATE KEY-----\nMII\n",
    "OpenSSH": "-----BEGIN OPENSSH· PRIVATE KEY-----\n",
    "encrypted": "  -----BEGIN ENCRYPTED· PRIVATE KEY-----\n",
    "PGP": "-----BEGIN PGP· PRIVATE KEY BLOCK-----\n",
    "PuTTY": "PuTTY-User-Key-·File-3: ssh-ed25519\n",
    "age": "# made\nAGE-SECRET-·KEY-1QQQQ\n",
    "AWS": "# key AKIA·IOSFODNN7EXAMPLE\n",
    "AWS session": "id=ASIA·IOSFODNN7EXAMPLE\n",
    "AWS file": "[default]\naws_secret_·access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY\n",
    "GitHub": "x = 'ghp·_abcdefghijklmnopqrstuvwxyz0123456789'\n",
    "GitHub fine": "github·_pat_11ABCDEFG0abcdefghijklmn_opq\n",
    "GitLab": "t: glpat·-abcdefghij0123456789\n",
    "Hugging Face": "login('hf·_abcdefghijklmnopqrstuvwxyz01234567')\n",
    "Slack": "xoxb·-1234567890-abcdefghij\n",
    "Google": "key=AIza·SyA-abcdefghijklmnopqrstuvwxyz01234\n",
    "service account": '{"type": "service_account", "private·_key": "-----BEGIN· PRIVATE KEY-----"}',
    "OAuth": '{"refresh·_token": "1/abcdefgh", "type": "authorized_user"}',
    "OpenAI": "openai: sk-·proj-abcdefghij0123456789\n",
    "Stripe": "sk·_live_abcdefghij0123456789\n",
    "npm": "//registry.npmjs.org/:_auth·Token=0123-4567-89\n",
    "PyPI": "[pypi]\nusername = __token__\npass·word = pypi-·AgEIcHlwaS5vcmcCJDAw\n",
    "wandb": "machine api.wandb.ai\n  login user\n  pass·word 0123456789\n",
    "wandb login": "wandb.login(key='0123456789abcdef·0123456789abcdef01234567')\n",
    "netrc": "machine example.org login me pass·word x\n",
    "git": "https:·//me:hunter2@example.org/repo.git\n",
    "index": "[global]\nindex-url = https:·//me:hunter2@example.org/simple\n",
    "database": "storage: postgresql:·//study:hunter2@db.example.org/optuna\n",
    "Docker": '{"auths": {·"https://index.docker.io/v1/": {"auth": "bWU6aHVudGVyMg=="}}}',
    "kubeconfig": "apiVersion: v1\nclusters: []\nkind: Con·fig\n",
    "Secret": "apiVersion: v1\nkind: Sec·ret\ndata: {a: b}\n",
    "Terraform": '{"version": 4, "terraform·_version": "1.9.0"}',
    "JWT": "eyJhbGciOiJIUzI1NiJ9·.eyJzdWIiOiIxMjM0NTY3ODkwIn0.c2ln\n",
    "Azure": "DefaultEndpointsProtocol=https;Account·Key=" + "a1" * 40 + "==\n",
    "SAS": "https://x.blob.core.windows.net/y?sv=1&si·g=abcdefghijklmnopqrstuvwxyz0123\n",
    "rclone": "[s3]\ntype = s3\nsecret_·access_key = 0123456789abcdef\n",
    "boto": "[Credentials]\ngs_secret_·access_key = 0123456789abcdef\n",
    "assigned in Python": "API_·KEY = 'correct-horse'\n",
    "assigned in YAML": "db:\n  pass·word: hunter2\n",
    "assigned in a shell": "export WANDB_API·_KEY=supersecret\n",
    "assigned in Windows": "set DB_PASS·WORD=hunter2\r\n",
    "JSON": '{"client_se·cret": "abcdefgh"}',
    "XML": "<server><pass·word>hunter2</pass·word></server>",
    "WireGuard": "[Interface]\nPrivate·Key = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
    "an older token": "hub_tok·en: abcdefgh12345678\n",
    "a token in code": "run(tok·en='abcdefgh12345678')\n",
    "MLflow": "MLFLOW_TRACKING_TOK·EN=abcdefgh\n",
    "Neptune": "api_tok·en: eyJhcGlfYWRkcmVzcyI6\n",
    "a header": "curl -H 'Authori·zation: Bearer abcdefgh12345678'\n",
    "basic": '{"authori·zation": "Basic bWU6aHVudGVyMg=="}',
    "a web key": '{"kty": "OKP", "·d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A"}',
    "base64": "tls.key: LS0tLS1CRUdJT·iBQUklWQVRFIEtFWS0tLS0t\n",
    "Dockerfile": "FROM x\nENV WANDB_API·_KEY=abcdef\n",
    "one command": "HF_TOK·EN=abcdefg python train.py\n",
    "a comment behind": "pass·word: hunter2  # of the lab\n",
    "cookies": "# Netscape HTTP·· Cookie File\n",
    "a lone word": "0123456789abcdef·0123456789abcdef\n",
}


@pytest.mark.parametrize("content", SECRET_CONTENTS.values(), ids=list(SECRET_CONTENTS))
@pytest.mark.parametrize("name", ["notes.txt", "lib/settings.py"])
def test_a_file_with_a_secret_in_it_goes_only_when_it_is_named(name: str, content: str, here: Path) -> None:
    put(here, name, content)
    with pytest.raises(ValueError, match="looks secret") as refused:
        packed(here)
    assert f"{name} (" in str(refused.value)
    assert packed(here, include=[name]) == ALL | {name}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be", "utf-16-le", "utf-32"])
def test_a_key_is_seen_however_its_text_is_encoded(encoding: str, here: Path) -> None:
    put(here, "notes.txt", spelled("-----BEGIN· PRIVATE KEY-----").decode().encode(encoding))
    with pytest.raises(ValueError, match="looks secret"):
        packed(here)


@pytest.mark.parametrize(
    "content",
    [
        bytes.fromhex("308204a40201003082") + b"x" * 40,
        bytes.fromhex("308209d70201033082") + b"x" * 40,
        bytes.fromhex("feedfeed00000002") + b"x" * 40,
        bytes.fromhex("03d9a29a67fb4bb5") + b"x" * 40,
    ],
    ids=["DER", "PKCS12", "Java", "KeePass"],
)
def test_binary_keys_are_seen_by_how_they_begin(content: bytes, here: Path) -> None:
    put(here, "blob.bin", content)
    with pytest.raises(ValueError, match=r"blob.bin \(a private key in it\)"):
        packed(here)


@pytest.mark.parametrize("content", [b"PK\x03\x04", b"\x1f\x8b\x08", b"7z\xbc\xaf", b"\xfd7zXZ", b"x" * 257 + b"ustar"])
def test_an_archive_by_another_name_is_not_sent_unseen(content: bytes, here: Path) -> None:
    put(here, "backup.dat", content + b"x" * 40)
    with pytest.raises(ValueError, match=r"backup.dat \(an archive, which nobody looked into, in it\)"):
        packed(here)


def test_a_folder_that_is_named_itself_may_be_called_what_it_likes(here: Path) -> None:
    put(here, "password_strength/model.py")
    with pytest.raises(ValueError, match=r"model.py \(its folder is called password_strength\)"):
        packed(here)
    assert packed(here, include=["password_strength"]) == ALL | {"password_strength/model.py"}
    put(here, "password_strength/deploy.pem")
    with pytest.raises(ValueError, match=r"deploy.pem \(its name\)"):
        packed(here, include=["password_strength"])


def test_a_login_in_an_address_is_neither_shown_nor_kept_on_the_cluster() -> None:
    assert without_login("https://me:hunter2@head:8265/x") == "https://head:8265/x"
    assert without_login("http://127.0.0.1:8265") == "http://127.0.0.1:8265"


def test_a_secret_in_the_experiment_itself_is_refused_too(here: Path) -> None:
    put(here, "layers.yaml", "name: x  # AKIA·IOSFODNN7EXAMPLE\n")
    with pytest.raises(ValueError, match=r"layers.yaml \(a key of AWS in it\)"):
        package.pack(here / "layers.yaml")
    assert package.pack(here / "layers.yaml", include=["layers.yaml"])


def test_public_keys_and_words_that_only_sound_like_it_go_along(here: Path) -> None:
    harmless = ("id_ed25519.pub", "tokenizer.json", "keyboard.txt", "monkey.csv", "tokens.py", "env.yaml", "report.md")
    for name in harmless:
        put(here, name, "password is asked for\ntoken_count = 3\nsee https://example.org/a:b/c@d\n")
    assert packed(here) == ALL | set(harmless)


def test_the_projects_own_code_goes_along() -> None:
    sent = package.pack(ROOT / "search_spaces" / "layers.yaml", folder=ROOT, exclude=["tests", "dist", "build"])
    assert sent.experiment == "search_spaces/layers.yaml"
    assert {"arat_ray/cli/__init__.py", "arat_ray/cluster/jobs/keys.py", "pyproject.toml"} <= set(sent.files)


def test_no_link_leads_out_of_the_folder(here: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside/notes.txt", "mine")
    (here / "file").symlink_to(outside)
    (here / "lib" / "folder").symlink_to(outside.parent)
    (here / "relative").symlink_to("../outside/notes.txt")
    (here / "root").symlink_to("/")
    (here / "through").symlink_to("lib/folder/notes.txt")
    (here / "nothing").symlink_to("nowhere")
    (here / "round").symlink_to("round")
    (here / "a").symlink_to("b")
    (here / "b").symlink_to("a")
    os.mkfifo(here / "pipe")
    sent = package.pack(here / "layers.yaml", folder=here)
    assert set(sent.files) == ALL
    assert [line for line in sent.stays if "out of the folder" in line] == [
        "file, relative, root, through, lib/folder: a link out of the folder"
    ]
    assert "a, b, nothing, round: a link to nothing" in sent.stays
    assert "pipe: neither a file nor a folder" in sent.stays
    for name in ("file", "lib/folder", "root", "lib/folder/notes.txt", "../outside/notes.txt", str(outside)):
        with pytest.raises(ValueError, match=r"out of|no such file"):
            packed(here, include=[name])


def test_a_link_inside_goes_as_a_copy_of_what_goes_by_its_own_name(here: Path) -> None:
    put(here, ".env", "A=1\n")
    put(here, "data/x", "1\n")
    (here / "again").symlink_to("lib/x.py")
    (here / "lib" / "innocent").symlink_to("../.env")
    (here / "lib" / "samples").symlink_to("../data/x")
    (here / "lib2").symlink_to("lib")
    (here / "up").symlink_to(".")
    sent = package.pack(here / "layers.yaml", folder=here)
    assert set(sent.files) == ALL | {"again"}
    assert "lib/innocent, lib/samples: a link to what stays behind" in sent.stays
    assert "lib2, up: a link to a folder" in sent.stays
    put(here, "conf/key.pem")
    (here / "lib" / "innocent").unlink()
    (here / "lib" / "innocent").symlink_to("../conf/key.pem")
    with pytest.raises(ValueError, match=r"lib/innocent \(its name\)"):
        package.pack(here / "layers.yaml", include=["lib"])


def test_an_experiment_that_is_a_link_goes_by_the_name_it_was_given(here: Path, tmp_path: Path) -> None:
    real = put(tmp_path, "shared/real.yaml", "seed: 7\n")
    (here / "mine.yaml").symlink_to(real)
    sent = package.pack(here / "mine.yaml")
    assert sent.experiment == "mine.yaml"
    assert sent.files["mine.yaml"].content == b"seed: 7\n"
    (tmp_path / "alias").symlink_to(here)
    assert package.pack(tmp_path / "alias" / "layers.yaml", folder=here).experiment == "layers.yaml"
    with pytest.raises(ValueError, match="does not hold"):
        package.pack(here / "layers.yaml", folder=here / "lib")


def test_what_was_looked_at_is_what_is_sent(here: Path, tmp_path: Path) -> None:
    (here / "lib" / "x.py").chmod(0o750)
    sent = package.pack(here / "layers.yaml", folder=here)
    put(here, "other.yaml", "-----BEGIN· PRIVATE KEY-----")
    sent.write(tmp_path / "there")
    assert (tmp_path / "there" / "other.yaml").read_text() == "seed: 1\n"
    assert (tmp_path / "there" / "lib" / "x.py").stat().st_mode & 0o777 == 0o750
    assert {path.relative_to(tmp_path / "there").as_posix() for path in (tmp_path / "there").rglob("*.*")} == ALL


def test_a_folder_that_is_too_large_is_refused_by_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package, "LIMIT_MIB", 1)
    for name, size in (("videos/x", 900_000), ("videos/y", 800_000), ("small", 100_000)):
        put(here, name, b"x" * size)
    with pytest.raises(
        ValueError, match=r"holds 1.7 MiB, more than 1 MiB; largest: videos \(1.6 MiB\), small"
    ) as error:
        packed(here)
    assert "--exclude NAME" in str(error.value)
    monkeypatch.setattr(package, "FILES_AT_MOST", 2)
    with pytest.raises(ValueError, match="more than 2 files"):
        packed(here)


@pytest.mark.parametrize(
    "unit", ["-", "a.", "eyJa", "password=", "a:/", "machine a ", " \t", "x", "sk-", "A_TOKEN", "\n"]
)
def test_no_content_takes_long_to_look_through(unit: str) -> None:
    keys.holds_one((unit * 300_000)[:300_000].encode())


def test_what_goes_is_listed_before_and_an_exclude_without_effect_is_said(here: Path) -> None:
    (here / "evil\x1b[2J.txt").write_text("x")
    put(here, ".env")
    lines = list(package.pack(here / "layers.yaml", folder=here, exclude=["lib", "typo*"]).listing())
    assert lines[:3] == ["to the cluster go 2 files, 16 bytes:", "  layers.yaml  8 bytes", "  other.yaml  8 bytes"]
    assert "stays behind: .env: as a rule" in lines
    assert "stays behind: lib: as --exclude says" in lines
    assert "stays behind: nothing by --exclude typo*, which fits no name" in lines
    assert any("not printable" in line and "\\x1b" in line for line in lines)
    assert not any("\x1b" in line for line in lines)


@pytest.mark.parametrize("words", [[], ["--folder", "."], ["--dry-run"]])
def test_submit_lists_what_goes_before_it_connects(words: list[str], write: Write, tmp_path: Path) -> None:
    file = write()
    put(tmp_path, "key.pem")
    words = [str(tmp_path) if word == "." else word for word in words]
    done = CliRunner().invoke(main, ["submit", str(file), "--address", "http://127.0.0.1:1", *words])
    if "--folder" in words:
        assert done.exit_code == 2
        assert "nothing was sent, for this looks secret: key.pem (its name)" in done.output
        assert "no job server" not in done.output
    else:
        assert f"to the cluster goes 1 file, {file.stat().st_size} bytes:\n  small.yaml  " in done.output
        assert ("no job server answers" in done.output) == ("--dry-run" not in words)
        assert done.exit_code == (0 if "--dry-run" in words else 2)


@pytest.mark.parametrize(
    ("name", "is_secret"),
    [
        *((name, True) for name in ("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "DB_PASSWORD")),
        *((name, False) for name in ("ARAT_DATA", "AWS_ENDPOINT_URL", "OMP_NUM_THREADS")),
    ],
)
def test_a_variable_that_all_users_of_the_cluster_will_see_is_noted(
    name: str, is_secret: bool, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "canary-7")
    for given in (name, f"{name}=canary-7"):
        done = CliRunner().invoke(main, ["submit", str(write()), "--dry-run", "--env", given])
        assert done.exit_code == 0, done.output
        assert (f"note: {name} will stand in the cluster's list of jobs" in done.output) == is_secret
        assert "canary" not in done.output


def test_a_variable_whose_value_has_the_shape_of_a_secret_is_noted_too(write: Write) -> None:
    for value in ("postgresql:·//study:canary7@db/optuna", "hf·_abcdefghijklmnopqrstuvwxyz01234567"):
        given = ["--env", f"PLACE={spelled(value).decode()}", "--env", "ARAT_DATA=/shared/data/imagenet2012-v1.0"]
        done = CliRunner().invoke(main, ["submit", str(write()), "--dry-run", *given])
        assert "note: PLACE will stand in" in done.output
        assert spelled(value).decode() not in done.output


@pytest.mark.parametrize("given", ["MY-KEY=canary-7", "=canary-7", "canary-7", "1A=canary-7", " A=canary-7"])
def test_a_variable_that_is_written_wrongly_is_refused_without_its_value(given: str, write: Write) -> None:
    done = CliRunner().invoke(main, ["submit", str(write()), "--env", "ARAT_DATA=/d", "--env", given])
    assert done.exit_code == 2
    assert "--env, the 2. of them: write NAME=VALUE" in done.output
    assert "canary" not in done.output


def test_a_name_is_looked_at_in_each_of_its_folders() -> None:
    assert keys.named_like_one(PurePosixPath("a/secrets/b/c.txt")) == "its folder is called secrets"
    assert keys.named_like_one(PurePosixPath("a/b/c.txt")) is None
