"""Settings: what is right is read as it stands, what is wrong is named with its line and remedy."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from soundpost.device.broker_settings import BrokerSettings
from soundpost.device.clip_store import ClipSettings
from soundpost.device.config import load_settings, parse_override
from soundpost.device.detection import ClassSettings
from soundpost.device.disk_outbox import OutboxSettings
from soundpost.device.errors import ConfigError, InputError, SoundpostError, UsageError
from soundpost.device.home_assistant import HomeAssistantSettings
from soundpost.device.settings import LevelSettings, MetricsSettings, Settings, SourceSettings
from soundpost.device.tls import TlsSettings
from soundpost.device.updates.update_settings import UpdateSettings

NO_PASSWORD: dict[str, str] = {}
FULL = """\
device_id = "porch-pi"

[mqtt]
host = "192.168.1.2"
port = 8883
username = "porch"
password_file = "secret"
keepalive_s = 45
base_topic = "home/sound"

[broker]
port = 1884

[outbox]
path = "waiting.sqlite3"
max_size_mb = 2.5
max_age_days = 7

[model]
bundle = "birds.bundle"
threads = 2
runtime = "tflite-runtime"

[detector]
min_gap_s = 2.5

[levels]
enabled = true
interval_s = 10

[metrics]
port = 9464
host = "192.168.1.9"
remote = true

[clips]
enabled = true
folder = "kept"
pre_roll_s = 2
labels = ["dog"]
channels = "all"
max_age_days = 7
min_per_class = 3

[source.garden]
url = "mic:USB"
channel = 3
profile = "garden.toml"
rate_hz = 48000

[source.tape]
url = "file:tape.flac"
loop = true
bundle = "/opt/other.bundle"

[source.wall]
url = "rtp:wall.sdp"
channel = 127
window_s = 0.1

[class.dog]
onset = 0.8
release = 0.5
"""


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_systemds_copy_of_the_password_is_read_in_place_of_the_file(tmp_path: Path) -> None:
    """The service may not read the file itself (LoadCredential=)."""
    copies = tmp_path / "credentials"
    copies.mkdir()
    (tmp_path / "mqtt.password").write_text("old\n", encoding="utf-8")
    text = '[mqtt]\nhost = "h"\nusername = "porch"\npassword_file = "mqtt.password"\n'
    path = write(tmp_path, text)

    def password() -> str | None:
        settings = load_settings(path, environment={"CREDENTIALS_DIRECTORY": str(copies)})
        assert settings.mqtt is not None
        return settings.mqtt.password

    assert password() == "old"
    (copies / "mqtt.password").write_text("handed over\n", encoding="utf-8")
    assert password() == "handed over"


def refusal(folder: Path, text: str, **kwargs: object) -> str:
    with pytest.raises(ConfigError) as refused:
        load_settings(write(folder, text), environment=NO_PASSWORD, **kwargs)  # type: ignore[arg-type]
    message = str(refused.value)
    assert "\n" not in message
    return message.replace(str(folder) + "/", "")


def test_no_file_is_a_microphone_the_starter_and_our_own_broker() -> None:
    settings = load_settings(environment=NO_PASSWORD)
    assert settings.mqtt is None
    assert settings.model.bundle is None
    assert [(source.name, source.url) for source in settings.sources] == [("mic0", "mic:")]
    assert not settings.levels.enabled
    assert not settings.clips.enabled
    assert settings.device_id
    assert "/" not in settings.device_id


def test_every_value_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish\n", encoding="utf-8")
    settings = load_settings(write(tmp_path, FULL), environment=NO_PASSWORD)
    assert settings.device_id == "porch-pi"
    assert settings.base_topic == "home/sound"
    assert settings.broker_port == 1884
    assert settings.outbox == OutboxSettings(tmp_path / "waiting.sqlite3", 2.5, 7)
    assert settings.mqtt is not None
    assert (settings.mqtt.host, settings.mqtt.port) == ("192.168.1.2", 8883)
    assert (settings.mqtt.username, settings.mqtt.password) == ("porch", "swordfish")
    assert settings.mqtt.keepalive_s == 45
    assert settings.model.bundle == tmp_path / "birds.bundle"
    assert (settings.model.threads, settings.model.runtime) == (2, "tflite-runtime")
    garden, tape, wall = settings.sources
    assert (garden.name, garden.url, garden.channel) == ("garden", "mic:USB", 3)
    assert garden.options == {"rate_hz": 48_000}
    assert garden.profile == tmp_path / "garden.toml"
    assert tape.profile is None
    assert settings.levels == LevelSettings(enabled=True, interval_s=10, bands=False)
    assert settings.metrics == MetricsSettings(port=9464, host="192.168.1.9", remote=True)
    assert settings.clips == ClipSettings(
        enabled=True,
        folder=tmp_path / "kept",
        pre_roll_s=2,
        labels=("dog",),
        channels="all",
        max_age_days=7,
        min_per_class=3,
    )
    assert tape.url == f"file:{tmp_path / 'tape.flac'}"
    assert tape.options == {"loop": True}
    assert tape.bundle == Path("/opt/other.bundle")
    assert (wall.url, wall.channel) == (f"rtp:{tmp_path / 'wall.sdp'}", 127)
    assert wall.options == {"window_s": 0.1}


def test_the_password_is_never_printed_and_the_environment_goes_first(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("swordfish\n", encoding="utf-8")
    path = write(tmp_path, FULL)
    settings = load_settings(path, environment={"SOUNDPOST_MQTT_PASSWORD": "haddock"})
    assert settings.mqtt is not None
    assert settings.mqtt.password == "haddock"
    assert "haddock" not in repr(settings)
    assert "haddock" not in str(settings)
    in_file = refusal(tmp_path, '[mqtt]\nhost = "a"\nusername = "b"\npassword = "haddock"\n')
    assert "haddock" not in in_file
    assert "password_file" in in_file
    assert "SOUNDPOST_MQTT_PASSWORD" in in_file


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            '[mqtt]\nhost = "a"\nkepalive_s = 3',
            "settings.toml:3: [mqtt] kepalive_s: unknown key; did you mean keepalive_s?",
        ),
        ("devise_id = 'a'", "settings.toml:1: devise_id: unknown key; did you mean device_id?"),
        ("[mqqt]\n", "settings.toml:1: [mqqt]: unknown table; did you mean mqtt?"),
        (
            '\n[mqtt]\nhost = "a"\nport = 70000',
            "settings.toml:4: [mqtt] port: found 70000, expected a whole number from 1 to 65535",
        ),
        (
            '[mqtt]\nhost = "a"\nkeepalive_s = 0',
            "settings.toml:3: [mqtt] keepalive_s: found 0, expected a whole number from 1 to "
            "65535 s",
        ),
        (
            "[class.dog]\nonset = nan",
            "settings.toml:2: [class.dog] onset: found nan, expected a number from 0.01 to 1",
        ),
        (
            "[class.dog]\nonset = true",
            "settings.toml:2: [class.dog] onset: found True, expected a number from 0.01 to 1",
        ),
        (
            "[class.dog]\nonset = 0.4\nrelease = 0.5",
            "settings.toml:3: [class.dog] release: found 0.5, above onset (0.4)",
        ),
        (
            '[detector]\nsmoothing = "mode"',
            "settings.toml:2: [detector] smoothing: found 'mode', expected one of median, mean, "
            "none",
        ),
        (
            "[source.a]\nchannel = -1",
            "settings.toml:2: [source.a] channel: found -1, expected a channel number from 0 to "
            '255, or "mix"',
        ),
        (
            "[source.a]\ndigital_silence_s = -1",
            "settings.toml:2: [source.a] digital_silence_s: found -1, expected a number from 0 to "
            "3600 s",
        ),
        (
            "[source.a]\nloop = true",
            "settings.toml:2: [source.a] loop: not an option of a mic: source",
        ),
        (
            "[levels]\ninterval_s = 0.5",
            "settings.toml:2: [levels] interval_s: found 0.5, expected a number from 1 to 3600 s",
        ),
        (
            "[clips]\nlabels = 'dog'",
            "settings.toml:2: [clips] labels: found 'dog', expected a list of texts, such as "
            '["dog", "siren"]',
        ),
        (
            "[clips]\nlabels = ['dog', 'dog']",
            "settings.toml:2: [clips] labels: found ['dog', 'dog'], expected a list of texts, such "
            'as ["dog", "siren"]',
        ),
        (
            "[clips]\npre_roll_s = 20\nmax_length_s = 20",
            "settings.toml:1: [clips]: pre_roll_s (20 s) leaves no room in max_length_s (20 s)",
        ),
        (
            "[clips]\npost_roll_s = 31",
            "settings.toml:2: [clips] post_roll_s: found 31, expected a number from 0 to 30 s",
        ),
        (
            "[clips]\nchannels = 'some'",
            "settings.toml:2: [clips] channels: found 'some', expected one of source, all",
        ),
        (
            "[levels]\nenable = true",
            "settings.toml:2: [levels] enable: unknown key; did you mean enabled?",
        ),
        ("mqtt = 3", "settings.toml:1: mqtt: expected a table, such as [mqtt]"),
        ("[device_id]", "settings.toml:"),
        ("[source]\na = 3", "settings.toml:2: [source] a: expected a table of its own"),
        (
            "[mqtt]\nport = 1883",
            "settings.toml:2: [mqtt] port: is set but host is not; set host, or leave [mqtt] out",
        ),
        (
            '[mqtt]\nhost = "a"\nretry_min_s = 60',
            "settings.toml:3: [mqtt] retry_min_s: found 60 s, above retry_max_s (30.0 s)",
        ),
        (
            "[outbox]\nmax_size_mb = 0",
            "settings.toml:2: [outbox] max_size_mb: found 0, expected a number from 0.1 to 10000 "
            "MB",
        ),
        (
            "[outbox]\nmax_age_d = 3",
            "settings.toml:2: [outbox] max_age_d: unknown key; did you mean max_age_days?",
        ),
        ("[source.status]\n", "settings.toml:1: [source.status]: source name 'status' is reserved"),
        ("device_id = 'a/b'", "settings.toml:1: device_id: device_id 'a/b' cannot be used"),
        (
            "[source.a]\nurl = 'mc:USB'",
            "settings.toml:2: [source.a] url: 'mc' is no kind of source; did you mean mic?",
        ),
        (
            "[source.a]\nurl = 'MIC:'",
            "settings.toml:2: [source.a] url: 'MIC' is no kind of source; expected one of",
        ),
        ("[mqtt]\nhost = 'mqtt://b'", "settings.toml:2: [mqtt] host: found 'mqtt://b', expected"),
        ("[mqtt]\nhost = 'b:1883'", "settings.toml:2: [mqtt] host: found 'b:1883', expected the"),
        ("[mqtt]\nhost = ' b'", "settings.toml:2: [mqtt] host: found ' b', expected the name"),
        ("device_id = ", "settings.toml: not TOML: "),
        ("a = " + "9" * 5_000, "settings.toml: not TOML: "),
        ("a = " + "[" * 20_000, "settings.toml: not TOML: "),
        (
            "[class.dog]\nonset = 0x" + "f" * 5_000,
            "settings.toml:2: [class.dog] onset: found a number of thousands of digits, expected",
        ),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, message: str) -> None:
    assert refusal(tmp_path, text).startswith(message)


def test_every_problem_is_found_in_the_order_of_the_file(tmp_path: Path) -> None:
    text = (
        "devise_id = 'a'\n[mqtt]\nhost = 3\nport = 0\n[class.dog]\nonset = 2\n"
        "[source.cmd]\n[source.b]\nloop = true\n[outbox]\nmax_size_mb = 1\n"
    )
    with pytest.raises(ConfigError) as refused:
        load_settings(write(tmp_path, text), environment=NO_PASSWORD)
    problems = [problem.partition("settings.toml:")[2] for problem in refused.value.problems]
    assert [problem.partition(": found")[0].partition(": unknown")[0] for problem in problems] == [
        "1: devise_id",
        # What else [mqtt] lacks follows from its wrong host: nothing is said of it.
        "3: [mqtt] host",
        "4: [mqtt] port",
        "6: [class.dog] onset",
        "7: [source.cmd]: source name 'cmd' is reserved (cmd, model, status are topics of their "
        "own)",
        "9: [source.b] loop: not an option of a mic: source",
    ]
    assert str(refused.value) == refused.value.problems[0]


def test_tls_and_the_version_of_mqtt(tmp_path: Path) -> None:
    trustme.CA().cert_pem.write_to_path(str(tmp_path / "ca.pem"))

    def mqtt(lines: str, **environment: str) -> BrokerSettings:
        path = write(tmp_path, f'[mqtt]\nhost = "a"\n{lines}\n')
        found = load_settings(path, environment=environment).mqtt
        assert found is not None
        return found

    plain = mqtt("")
    assert (plain.port, plain.tls, plain.version) == (1883, None, "auto")
    assert mqtt("tls = true").tls == TlsSettings()
    assert mqtt("tls = true").port == 8883
    assert mqtt('ca_file = "ca.pem"').tls == TlsSettings(tmp_path / "ca.pem")
    assert mqtt('ca_file = "ca.pem"\nport = 1884').port == 1884
    assert mqtt("tls_insecure = true").tls == TlsSettings(insecure=True)
    assert mqtt("tls = false\ntls_insecure = false").tls is None
    assert mqtt('version = "3.1.1"\nack_timeout_s = 5').ack_timeout_s == 5
    named = mqtt('username = "b"', SOUNDPOST_MQTT_USERNAME="c")
    assert named.username == "c"


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('tls = false\nca_file = "ca.pem"', "ca_file: is set, but tls is false"),
        ('key_file = "key.pem"', "key_file: is set but cert_file is not"),
        ('ca_file = "absent.pem"', "absent.pem: No such file"),
        ('version = "4"', "version: found '4', expected one of auto, 5, 3.1.1"),
        ("ack_timeout_s = 0", "ack_timeout_s: found 0, expected a number from 1 to 3600 s"),
    ],
)
def test_tls_that_cannot_be_is_refused(tmp_path: Path, lines: str, message: str) -> None:
    path = write(tmp_path, f'[mqtt]\nhost = "a"\n{lines}\n')
    with pytest.raises(SoundpostError) as caught:
        load_settings(path, environment=NO_PASSWORD)
    assert message in str(caught.value)


def test_home_assistant(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        '[home_assistant]\ndiscovery = "component"\nprefix = "ha/x"\nlabels = ["dog", "Türe"]\n',
    )
    found = load_settings(path, environment=NO_PASSWORD).home_assistant
    assert found == HomeAssistantSettings("component", "ha/x", ("dog", "Türe"))
    assert load_settings(environment=NO_PASSWORD).home_assistant.discovery is None
    for line, message in (
        ('discovery = "on"', "found 'on', expected one of device, component, off"),
        ('labels = ["a/b"]', "contains '/'"),
        ('labels = ["a", "a"]', "each once"),
        ('prefix = "a/#"', "contains '#'"),
    ):
        assert message in refusal(tmp_path, f"[home_assistant]\n{line}\n")


UPDATES = """
[updates]
repository = "{repository}"
root = "keys/root.json"
channel = "canary"
install = "ask"
hours = "22:00-05:30"
shadow_s = 60
"""


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("https://models.example.org/a", "https://models.example.org/a"),
        ("models", "{folder}/models"),
        ("/srv/models", "/srv/models"),
    ],
)
def test_updates(tmp_path: Path, repository: str, expected: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f'device_id = "porch"\n{UPDATES.format(repository=repository)}', "utf-8")
    found = load_settings(path, environment={"STATE_DIRECTORY": "/var/lib/soundpost"}).updates
    assert found == UpdateSettings(
        repository=expected.format(folder=tmp_path),
        root=tmp_path / "keys/root.json",
        # By the sensor's name: two on one machine do not meet.
        folder=Path("/var/lib/soundpost/models-porch"),
        channel="canary",
        install="ask",
        hours="22:00-05:30",
        shadow_s=60,
    )
    assert load_settings(environment={"HOME": str(tmp_path)}).updates == UpdateSettings()


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('channel = "stable"', "channel: is set but repository is not"),
        ('repository = "a"', "root is missing"),
        ('repository = "a"\nroot = "b"\nhours = "22-5"', "hours must be two times of day"),
        ('repository = "a"\nroot = "b"\nchannel = "a b"', "channel must be a name"),
        ('repository = "a"\nroot = "b"\ninstall = "never"', "expected one of automatic, ask"),
        ('repository = "a"\nroot = "b"\nshadow_s = 0', "expected a number from 1 to"),
        ('repository = "a"\nroot = "b"\nchanel = "x"', "did you mean channel?"),
    ],
)
def test_updates_that_cannot_be_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    path = tmp_path / "settings.toml"
    path.write_text(f"[updates]\n{lines}\n", "utf-8")
    with pytest.raises(ConfigError, match=re.escape(message)) as refused:
        load_settings(path, environment={"STATE_DIRECTORY": str(tmp_path)})
    assert "[updates]" in str(refused.value)


def test_a_password_needs_a_user_name(tmp_path: Path) -> None:
    path = write(tmp_path, '[mqtt]\nhost = "a"\n')
    with pytest.raises(ConfigError, match="username: is missing"):
        load_settings(path, environment={"SOUNDPOST_MQTT_PASSWORD": "haddock"})


@pytest.mark.parametrize(
    ("environment", "folder"),
    [
        ({"STATE_DIRECTORY": "/var/lib/soundpost", "XDG_STATE_HOME": "/x"}, "/var/lib/soundpost"),
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/home/pi/state"}, "/home/pi/state/soundpost"),
        ({"XDG_STATE_HOME": "relative"}, "HOME/.local/state/soundpost"),
        ({}, "HOME/.local/state/soundpost"),
    ],
)
def test_the_outbox_lies_where_state_belongs(environment: dict[str, str], folder: str) -> None:
    settings = load_settings(None, {"device_id": "porch-pi"}, environment)
    expected = Path(folder.replace("HOME", str(Path.home())))
    assert settings.outbox.path == expected / "outbox-porch-pi.sqlite3"


def test_files_that_are_no_settings(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"absent\.toml: cannot read the settings: No such file"):
        load_settings(tmp_path / "absent.toml")
    sound = tmp_path / "clip.wav"
    sound.write_bytes(b"RIFF\xff\xfe" * 100)
    with pytest.raises(ConfigError, match="not UTF-8 text"):
        load_settings(sound)
    sound.write_bytes(b"a" * 1_000_001)
    with pytest.raises(ConfigError, match="larger than 1000000 bytes"):
        load_settings(sound)
    with pytest.raises(InputError, match="secret"):
        load_settings(write(tmp_path, FULL), environment=NO_PASSWORD)


def test_options_go_over_the_file_and_are_named_in_refusals(tmp_path: Path) -> None:
    path = write(tmp_path, "[class.dog]\nonset = 0.8\n")
    settings = load_settings(
        path,
        dict([parse_override("class.dog.onset=0.9"), parse_override("mqtt.host=10.0.0.2")]),
        environment=NO_PASSWORD,
    )
    assert settings.classes["dog"]["onset"] == 0.9
    assert settings.mqtt is not None
    assert settings.mqtt.host == "10.0.0.2"
    message = refusal(tmp_path, "", overrides={"mqtt.prot": 3})
    assert message == "option mqtt.prot: unknown key; did you mean port?"
    with pytest.raises(UsageError, match="expected KEY=VALUE"):
        parse_override("mqtt.host")


BUNDLE = (ClassSettings("dog", 0.6, 0.3), ClassSettings("smoke_alarm", 0.4, 0.2, cadence="T3"))
OUTBOX = OutboxSettings(Path("outbox.sqlite3"))


def test_class_settings_go_over_the_bundles_own() -> None:
    settings = Settings(
        "a",
        OUTBOX,
        detector={"min_gap_s": 2.5},
        classes={"dog": {"onset": 0.8, "min_gap_s": 0.5}},
    )
    dog, smoke = settings.detector_classes("mic0", BUNDLE)
    # The release threshold keeps its share of the onset.
    assert (dog.onset, dog.release, dog.min_gap_s) == (0.8, pytest.approx(0.4), 0.5)
    assert smoke == ClassSettings("smoke_alarm", 0.4, 0.2, min_gap_s=2.5, cadence="T3")


def test_a_source_has_thresholds_of_its_own(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "[source.porch]\n[source.porch.class.dog]\nonset = 0.4\n[source.yard]\n"
        "[class.dog]\nonset = 0.8\nmin_gap_s = 2.0\n[class.smoke_alarm]\nonset = 0.5\n",
    )
    settings = load_settings(path, environment=NO_PASSWORD)
    porch, smoke = settings.detector_classes("porch", BUNDLE)
    yard, _ = settings.detector_classes("yard", BUNDLE)
    assert (porch.onset, porch.release, porch.min_gap_s) == (0.4, pytest.approx(0.2), 2.0)
    assert (yard.onset, yard.release, yard.min_gap_s) == (0.8, pytest.approx(0.4), 2.0)
    assert smoke.onset == 0.5
    message = refusal(tmp_path, "[source.porch.class.dog]\nonset = 1.2\n")
    assert message.startswith("settings.toml:2: [source.porch.class.dog] onset: found 1.2, ")
    message = refusal(tmp_path, "[source.porch]\nclass = 3\n")
    assert message.endswith("class: expected tables, such as [source.porch.class.LABEL]")


def test_a_label_that_the_bundle_lacks_is_refused() -> None:
    settings = Settings("a", OUTBOX, classes={"smoke_alram": {"onset": 0.8}})
    with pytest.raises(ConfigError, match=r"\[class.smoke_alram\].*did you mean smoke_alarm\?"):
        settings.check_class_labels(["dog", "smoke_alarm"])
    with pytest.raises(ConfigError, match=r"release is 0\.9"):
        Settings("a", OUTBOX, classes={"dog": {"release": 0.9}}).detector_classes("mic0", BUNDLE)
    own = SourceSettings("porch", classes={"cat": {"onset": 0.8}})
    with pytest.raises(ConfigError, match=r"\[source\.porch\.class\.cat\]: the bundle has no such"):
        Settings("a", OUTBOX, sources=(own,)).detector_classes("porch", BUNDLE)
    # Another source's bundle may have it.
    settings = Settings("a", OUTBOX, classes={"knock": {"onset": 0.8}})
    assert settings.detector_classes("mic0", BUNDLE) == BUNDLE
    settings.check_class_labels(["dog", "smoke_alarm", "knock"])


def test_a_name_that_is_too_long_for_any_file_is_refused(tmp_path: Path) -> None:
    message = refusal(tmp_path, f'[source.porch]\nurl = "mi{"a" * 300}:x"\n')
    assert message.startswith("settings.toml:2: [source.porch] url: 'miaaa")


KEYS = st.one_of(
    st.sampled_from(["mqtt", "host", "class", "dog", "onset", "source", "url", "device_id"]),
    st.sampled_from(["outbox", "path", "max_size_mb", "max_age_days"]),
    st.text(max_size=8),
)
VALUES = st.one_of(
    st.booleans(),
    st.integers(-(10**6), 10**6),
    st.floats(),
    st.text(max_size=8),
    st.lists(st.integers(), max_size=2),
)
TABLES = st.dictionaries(
    KEYS,
    st.recursive(VALUES, lambda inner: st.dictionaries(KEYS, inner, max_size=3), max_leaves=6),
    max_size=4,
)


def toml(value: object) -> str:
    """Inline TOML; JSON's escapes of a text are TOML's."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {toml(v)}" for key, v in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(toml(v) for v in value) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return quoted(value) if isinstance(value, str) else str(value)


def quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=True).replace("\x7f", "\\u007f")


@given(st.one_of(st.text(max_size=300), TABLES))
def test_anything_is_settings_or_one_clear_line(content: str | dict[str, object]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "settings.toml"
        if isinstance(content, dict):
            content = "\n".join(f"{quoted(key)} = {toml(v)}" for key, v in content.items())
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        message = None
        try:
            settings = load_settings(path, environment=NO_PASSWORD)
        except ConfigError as error:
            message = str(error)
    if message is None:
        assert settings.sources
    else:
        assert len(message.splitlines()) == 1
        assert "settings.toml" in message


def test_clips_lie_in_the_folder_for_state(tmp_path: Path) -> None:
    path = write(tmp_path, "[clips]\nenabled = true")
    settings = load_settings(path, environment={"STATE_DIRECTORY": "/var/lib/soundpost"})
    assert settings.clips.folder == Path("/var/lib/soundpost/clips")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[model]\nbundle = '~nobody-of-this-name/a.bundle'\n", "no home folder is known"),
        ("[source.yard]\nurl = 'file:~nobody-of-this-name/a.wav'\n", "no home folder is known"),
        (
            "[mqtt]\nhost = 'h'\nusername = 'a'\npassword_file = 'a\u202eb'\n",
            "a\\u202eb: No such file",
        ),
        (
            f"[mqtt]\nhost = 'h'\nusername = 'a'\npassword_file = '{'a' * 300}'\n",
            "File name too long",
        ),
    ],
)
def test_files_that_cannot_be_are_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SoundpostError) as refused:
        load_settings(write(tmp_path, text), environment=NO_PASSWORD)
    assert message in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_name_of_any_length_is_cut_in_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, f"[source.{'a' * 9_000}]\n{'b' * 9_000} = 1\n")
    with pytest.raises(ConfigError) as refused:
        load_settings(path, environment=NO_PASSWORD)
    assert len(str(refused.value)) < len(str(path)) + 500
