"""Factories of trials, sites, people, subjects, visits and what was received."""

from __future__ import annotations

import hashlib

import factory
from django.contrib.auth import get_user_model
from django.utils import timezone
from factory.django import DjangoModelFactory

from sites_app.models import (
    Arm,
    DeidentificationProfile,
    Instance,
    Membership,
    Role,
    Scanner,
    ScannerEpoch,
    Series,
    SeriesSegment,
    Site,
    Study,
    Subject,
    Submission,
    Trial,
    Upload,
    Visit,
    VisitDefinition,
)

PASSWORD = "correct horse battery staple"


class UserFactory(DjangoModelFactory):
    class Meta:
        model = get_user_model()
        skip_postgeneration_save = True

    username = factory.Sequence(lambda number: f"person{number}")
    full_name = factory.Sequence(lambda number: f"Person {number}")

    @factory.post_generation
    def password(self, create, extracted, **kwargs):  # type: ignore[no-untyped-def]
        self.set_password(extracted or PASSWORD)
        if create:
            self.save()


class TrialFactory(DjangoModelFactory):
    class Meta:
        model = Trial

    code = factory.Sequence(lambda number: f"TRIAL-{number}")
    title = factory.LazyAttribute(lambda trial: f"Trial {trial.code}")


class ArmFactory(DjangoModelFactory):
    class Meta:
        model = Arm

    trial = factory.SubFactory(TrialFactory)
    code = factory.Sequence(lambda number: f"arm-{number}")
    title = factory.LazyAttribute(lambda arm: f"Arm {arm.code}")


class SiteFactory(DjangoModelFactory):
    class Meta:
        model = Site

    trial = factory.SubFactory(TrialFactory)
    code = factory.Sequence(lambda number: f"S{number:03d}")
    name = factory.LazyAttribute(lambda site: f"Site {site.code}")
    country = "DE"


class MembershipFactory(DjangoModelFactory):
    class Meta:
        model = Membership

    user = factory.SubFactory(UserFactory)
    trial = factory.SubFactory(TrialFactory)
    site = None
    role = Role.DATA_MANAGER


class VisitDefinitionFactory(DjangoModelFactory):
    class Meta:
        model = VisitDefinition

    trial = factory.SubFactory(TrialFactory)
    code = factory.Sequence(lambda number: f"V{number}")
    title = factory.LazyAttribute(lambda definition: f"Visit {definition.code}")
    position = factory.Sequence(lambda number: number % 1000)


class SubjectFactory(DjangoModelFactory):
    class Meta:
        model = Subject

    site = factory.SubFactory(SiteFactory)
    trial = factory.SelfAttribute("site.trial")
    code = factory.Sequence(lambda number: f"SUBJ-{number:04d}")


class VisitFactory(DjangoModelFactory):
    class Meta:
        model = Visit

    subject = factory.SubFactory(SubjectFactory)
    trial = factory.SelfAttribute("subject.trial")
    site = factory.SelfAttribute("subject.site")
    definition = factory.SubFactory(VisitDefinitionFactory, trial=factory.SelfAttribute("..trial"))


class ScannerFactory(DjangoModelFactory):
    class Meta:
        model = Scanner

    site = factory.SubFactory(SiteFactory)
    trial = factory.SelfAttribute("site.trial")
    manufacturer = "SIEMENS"
    model = "Prisma"
    serial_number = factory.Sequence(lambda number: f"{10000 + number}")
    modality = "MR"
    field_strength_t = 3.0


class ScannerEpochFactory(DjangoModelFactory):
    class Meta:
        model = ScannerEpoch

    scanner = factory.SubFactory(ScannerFactory)
    trial = factory.SelfAttribute("scanner.trial")
    site = factory.SelfAttribute("scanner.site")
    number = factory.Sequence(lambda number: number + 1)
    software_versions = factory.Sequence(lambda number: f"syngo MR E{number}")


class DeidentificationProfileFactory(DjangoModelFactory):
    class Meta:
        model = DeidentificationProfile

    trial = factory.SubFactory(TrialFactory)
    version = factory.Sequence(lambda number: number + 1)
    document = factory.LazyFunction(dict)
    digest = factory.Sequence(lambda number: hashlib.sha256(str(number).encode()).hexdigest())


class SubmissionFactory(DjangoModelFactory):
    class Meta:
        model = Submission

    visit = factory.SubFactory(VisitFactory)
    subject = factory.SelfAttribute("visit.subject")
    site = factory.SelfAttribute("visit.site")
    trial = factory.SelfAttribute("visit.trial")
    profile = factory.SubFactory(DeidentificationProfileFactory, trial=factory.SelfAttribute("..trial"))
    created_by = factory.SubFactory(UserFactory)


class UploadFactory(DjangoModelFactory):
    class Meta:
        model = Upload

    submission = factory.SubFactory(SubmissionFactory)
    trial = factory.SelfAttribute("submission.trial")
    site = factory.SelfAttribute("submission.site")
    kind = Upload.Kind.DICOM
    size = 1
    sha256 = factory.Sequence(lambda number: hashlib.sha256(f"upload {number}".encode()).hexdigest())


class StudyFactory(DjangoModelFactory):
    class Meta:
        model = Study

    visit = factory.SubFactory(VisitFactory)
    subject = factory.SelfAttribute("visit.subject")
    site = factory.SelfAttribute("visit.site")
    trial = factory.SelfAttribute("visit.trial")
    study_instance_uid = factory.Sequence(lambda number: f"2.25.10{number}")


class SeriesFactory(DjangoModelFactory):
    """A received series of an accepted submission, without instances (see InstanceFactory)."""

    class Meta:
        model = Series

    study = factory.SubFactory(StudyFactory)
    visit = factory.SelfAttribute("study.visit")
    subject = factory.SelfAttribute("study.subject")
    site = factory.SelfAttribute("study.site")
    trial = factory.SelfAttribute("study.trial")
    submission = factory.SubFactory(
        SubmissionFactory, visit=factory.SelfAttribute("..visit"), state=Submission.State.ACCEPTED
    )
    series_instance_uid = factory.Sequence(lambda number: f"2.25.20{number}")
    modality = "MR"
    instance_count = 1
    received_at = factory.LazyFunction(timezone.now)


class SeriesSegmentFactory(DjangoModelFactory):
    class Meta:
        model = SeriesSegment

    series = factory.SubFactory(SeriesFactory)
    trial = factory.SelfAttribute("series.trial")
    upload = factory.SubFactory(UploadFactory, submission=factory.SelfAttribute("..series.submission"))
    size = 0
    instance_count = 0
    columns = factory.LazyFunction(dict)


class InstanceFactory(DjangoModelFactory):
    class Meta:
        model = Instance

    segment = factory.SubFactory(SeriesSegmentFactory)
    series = factory.SelfAttribute("segment.series")
    site = factory.SelfAttribute("series.site")
    trial = factory.SelfAttribute("series.trial")
    sop_instance_uid = factory.Sequence(lambda number: f"2.25.30{number}")
    sop_class_uid = "1.2.840.10008.5.1.4.1.1.4"
    transfer_syntax_uid = "1.2.840.10008.1.2.1"
    instance_number = 1
    offset = 0
    size = 1
    sha256 = factory.Sequence(lambda number: hashlib.sha256(f"instance {number}".encode()).hexdigest())
    original_sha256 = factory.Sequence(lambda number: hashlib.sha256(f"file {number}".encode()).hexdigest())
