"""Hard negatives found by a model."""

from instructor_st.data.mining.folder import MiningPlan, mine_folder, plan_mining, write_mining_report
from instructor_st.data.mining.mine_task import MinedTask, mine_task_negatives
from instructor_st.data.mining.options import MiningOptions

__all__ = [
    "MinedTask",
    "MiningOptions",
    "MiningPlan",
    "mine_folder",
    "mine_task_negatives",
    "plan_mining",
    "write_mining_report",
]
