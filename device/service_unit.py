"""The systemd unit of a sensor: what it may do, when it is well, and what happens when not."""

from __future__ import annotations

from typing import Final

NAME: Final = "soundpost"
UNIT: Final = f"{NAME}.service"
# The first line of a unit that may be replaced: one written by hand is left alone.
MARK: Final = "# Written by `soundpost service install`; change it with `systemctl edit soundpost`."

# systemd of this version or newer lengthens the pause between restarts.
_BACKOFF_SINCE: Final = 254
_BACKOFF: Final = "RestartSteps=6\nRestartMaxDelaySec=5min\n"

_UNIT: Final = """\
{mark}
[Unit]
Description=Soundpost sound-event sensor
# Only an order: it listens without a network, and finds its broker when there is one.
After=network.target sound.target
# It never gives up: a microphone or a disk may come back after any time.
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
# -I: no folder of a user's, no variable and no working folder can change what is imported.
ExecStart=/opt/soundpost/current/bin/python -I -m soundpost.device run --config {settings}
ExecReload=/bin/kill -HUP $MAINPID
# Loading and checking the model takes long on the smallest boards.
TimeoutStartSec=180
TimeoutStopSec=30
# Fed only while every source delivers samples or is known to be lost and tried again.
WatchdogSec=30
Restart=always
RestartSec=5
{backoff}\
# A wrong setting (2) and a damaged bundle (3) do not mend by themselves.
RestartPreventExitStatus=2 3
# Stopped while alerts wait on disk for the broker (4): they are sent after the next start.
SuccessExitStatus=4

DynamicUser=yes
User=soundpost
SupplementaryGroups=audio
StateDirectory=soundpost
StateDirectoryMode=0700
RuntimeDirectory=soundpost
ConfigurationDirectory=soundpost
WorkingDirectory=/var/lib/soundpost
Environment=HOME=/var/lib/soundpost XDG_RUNTIME_DIR=/run/soundpost
# Only root can read the file; the sensor gets a copy that only it can read.
LoadCredential=mqtt.password:/etc/soundpost/mqtt.password
SyslogIdentifier=soundpost
UMask=0077

# One source takes some 65 MB.
MemoryHigh=300M
MemoryMax=500M
TasksMax=100
# A core dump would hold what the microphone heard.
LimitCORE=0

# What a listener to microphones needs, and no more. Four switches are off with a reason:
# MemoryDenyWriteExecute: PortAudio calls back into Python through memory that is made executable.
# ProtectClock, @clock: they also forbid to read whether the clock is synchronised (adjtimex).
# ProcSubset: the stable names of sound cards stand in /proc/asound.
# PrivateDevices: it would hide the microphones.
CapabilityBoundingSet=
DevicePolicy=closed
DeviceAllow=char-alsa rw
LockPersonality=yes
NoNewPrivileges=yes
PrivateMounts=yes
PrivateUsers=yes
ProtectControlGroups=yes
ProtectHome=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
ProtectProc=invisible
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources
SystemCallFilter=adjtimex clock_adjtime
SystemCallFilter=setpriority setrlimit prlimit64
SystemCallErrorNumber=EPERM

[Install]
WantedBy=multi-user.target
"""

# What `install` writes where there are no settings yet.
SETTINGS: Final = """\
# Settings of the Soundpost service. Paths are relative to this folder: put bundles and microphone
# profiles beside this file. After a change:
#
#   soundpost config check /etc/soundpost/soundpost.toml
#   sudo systemctl reload soundpost
#
# After a change of the password: sudo systemctl restart soundpost

# device_id = "porch-pi"            # default: the name of this machine

# Without a broker the sensor brings its own, which only programs on this machine can reach.
# [mqtt]
# host = "broker.local"
# username = "porch"
# password_file = "mqtt.password"   # write the password into it with `sudo nano`

# [source.porch]
# url = "mic:USB"                   # a NAME of `soundpost devices`
# channel = 0
"""

LAUNCHER: Final = """\
#!/bin/sh
# Written by `soundpost service install`.
exec /opt/soundpost/current/bin/python -I -m soundpost.device "$@"
"""


def unit_text(systemd_version: int | None, settings: str = "/etc/soundpost/soundpost.toml") -> str:
    """The unit file.

    systemd_version : of the machine it is for; None: unknown, and nothing newer than 250 is used
    settings : path of the settings
    """
    backoff = _BACKOFF if (systemd_version or 0) >= _BACKOFF_SINCE else ""
    return _UNIT.format(mark=MARK, settings=settings, backoff=backoff)
