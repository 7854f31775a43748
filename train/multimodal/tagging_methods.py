"""The six methods of yin2021's table 3 by name, with the networks that each of them trains."""

from __future__ import annotations

from torch import nn

from soundpost.device.errors import ConfigError
from soundpost.device.settings import nearest
from soundpost.train.multimodal.baselines import (
    FitNets,
    HintSettings,
    KnowledgeDistillation,
    Plain,
    deep_mutual_learning,
)
from soundpost.train.multimodal.device_students import (
    DeviceSettings,
    Matched,
    device_student,
)
from soundpost.train.multimodal.method import Method
from soundpost.train.multimodal.mutual import MutualLearning, MutualSettings
from soundpost.train.multimodal.mutual_networks import (
    StudentNetwork,
    TaggingBatch,
    TaggingSettings,
    TeacherNetwork,
    VisualNetwork,
)

# Rows of table 3, then the two of table 1 that are no students.
STUDENTS = ("plain", "distillation", "enhanced_feature", "fitnets", "deep_mutual", "mutual")
NETWORKS = ("visual", "fusion")


def tagging_method(
    name: str,
    n_labels: int,
    networks: TaggingSettings,
    mutual: MutualSettings | None = None,
    hints: HintSettings | None = None,
    device: DeviceSettings | None = None,
) -> Method[TaggingBatch]:
    """A method with new networks, drawn from torch's generator.

    name : one of STUDENTS, or of NETWORKS: the frames or both modalities, from labels alone
    mutual, hints : settings of "mutual" and "fitnets"
    device : which of the sensor's networks the student is; by default it is the paper's

    The teacher is drawn first, so that with one seed it is the same for every method. Raises
    ConfigError on another name.
    """
    if name == "visual":
        return Plain(VisualNetwork(n_labels, networks))
    if name == "plain":
        return Plain(_student(n_labels, networks, device, None))
    if name not in STUDENTS + NETWORKS:
        raise ConfigError(f"method {name!r}: unknown{nearest(name, STUDENTS + NETWORKS)}")
    teacher = TeacherNetwork(n_labels, networks)
    if name == "fusion":
        return Plain(teacher)
    student = _student(n_labels, networks, device, teacher if name == "mutual" else None)
    if name == "distillation":
        return KnowledgeDistillation(teacher, student)
    if name == "enhanced_feature":
        return KnowledgeDistillation(teacher, student, hard=0.0)
    if name == "fitnets":
        return FitNets(teacher, student, hints)
    if name == "deep_mutual":
        return deep_mutual_learning(teacher, student)
    return MutualLearning(teacher, student, mutual or MutualSettings())


def _student(
    n_labels: int,
    networks: TaggingSettings,
    device: DeviceSettings | None,
    compared: TeacherNetwork | None,
) -> nn.Module:
    """compared : the teacher whose contexts the student's are compared with, if any."""
    if device is None:
        return StudentNetwork(n_labels, networks, imagines=compared is not None)
    sizes = None if compared is None else Matched(compared.acoustic_size, compared.visual_size)
    return device_student(n_labels, device, sizes)
