"""Placement groups that outlived who asked for them, and keep Ray from placing anything else.

The group of a trial's workers belongs to Ray Train's controller, which sits beside the trial's actor. When a node takes
both with it, Ray places the group's lost bundles again, for nobody. With no room for them it tries without a pause and
gets to no other group, not even to one that there is room for, so that the trial never goes on. Ray Train has a
cleaner of its own, which asks Ray's dashboard whether the controller lives, and so does nothing where that is off.
"""

from __future__ import annotations

import ray
from ray import PlacementGroupID
from ray.util import placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup


def remove_stranded() -> None:
    """Remove the groups of this driver's job that lost a node.

    Nothing of a study has its workers put back by Ray: a trial that lost one begins anew with a group of its own.
    """
    job = ray.get_runtime_context().get_job_id()  # in hex, the end of all that the job has created
    for key, group in placement_group_table().items():
        if group["state"] == "RESCHEDULING" and key.endswith(job):
            remove_placement_group(PlacementGroup(PlacementGroupID(bytes.fromhex(key))))
