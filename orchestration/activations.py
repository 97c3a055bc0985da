"""When segments are sent and called back, for Dagster: a round every quarter of an hour, and what the home's `destinations.yml` schedules."""

from dataclasses import asdict
from typing import Any

import dagster as dg

from orchestration.resources import HomeResource, Reporter
from serving.activation.destinations import Schedule, read_destinations, read_schedules
from serving.activation.dispatch import Dispatch
from serving.activation.errors import ActivationError
from serving.activation.rounds import follow_schedule, go_round
from serving.answers import clock_of
from troth.home import Home


@dg.op(description="Send what is approved, go on with what stopped, call back who may not be contacted any more.")
def go_activation_round(
    context: dg.OpExecutionContext, troth: HomeResource, reporter: dg.ResourceParam[Reporter]
) -> None:
    """One round. Faults are told and tried again in the next; a file of destinations that cannot be read stops it."""
    read_destinations(troth.home)
    done = go_round(_dispatch(troth, reporter))
    for what, why in done.faults.items():
        context.log.warning(f"{what}: {why}")
    context.add_output_metadata({name: value for name, value in asdict(done).items() if name != "faults"})


@dg.op(config_schema={"schedule": str}, description="Ask for what a schedule says; send it where nobody has to agree.")
def ask_by_schedule(context: dg.OpExecutionContext, troth: HomeResource, reporter: dg.ResourceParam[Reporter]) -> None:
    found = follow_schedule(_dispatch(troth, reporter), context.op_config["schedule"])
    context.add_output_metadata(
        {"delivery": found.delivery_id, "state": found.state, "people": found.exported or found.expected}
    )


@dg.job(description="What is approved is sent, what was sent is called back where consent ended.")
def activation_round() -> None:
    go_activation_round()


@dg.job(description="A segment that is sent again and again.")
def standing_activation() -> None:
    ask_by_schedule()


JOBS = (activation_round, standing_activation)


def schedules(home: Home) -> list[dg.ScheduleDefinition]:
    """The round's, and one for each that the home declares. A file that cannot be read has the round say so, and stops nothing else."""
    try:
        declared = read_schedules(home)
    except ActivationError:
        declared = []
    round_ = dg.ScheduleDefinition(job=activation_round, cron_schedule="11/15 * * * *", execution_timezone="UTC")
    return [round_, *map(_scheduled, declared)]


def _scheduled(schedule: Schedule) -> dg.ScheduleDefinition:
    config: dict[str, Any] = {"ops": {"ask_by_schedule": {"config": {"schedule": schedule.name}}}}
    return dg.ScheduleDefinition(
        name=f"activate_{schedule.name}",
        job=standing_activation,
        cron_schedule=schedule.cron,
        execution_timezone="UTC",
        run_config=config,
        description=f"{schedule.segment} to {schedule.destination} by {schedule.channel}, asked for by {schedule.asked_by}.",
    )


def _dispatch(troth: HomeResource, reporter: Reporter) -> Dispatch:
    return Dispatch(troth.home, clock_of(troth.home), advance=reporter.advance)
