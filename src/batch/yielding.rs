//! Joins that can be stopped. A query ends at the next point at which it yields to the runtime, and the engine lets it
//! yield where it reads. A join makes many rows of few that it has read: one of a date with itself would go on for minutes
//! after its run was cancelled, and hold a batch thread.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;

/// Lets whatever gives more rows than it takes yield as it gives them.
#[derive(Debug)]
pub struct YieldingJoins;

impl PhysicalOptimizerRule for YieldingJoins {
    fn name(&self) -> &str {
        "YieldingJoins"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let yielding = |plan: Arc<dyn ExecutionPlan>| {
            let widens = plan.name().ends_with("JoinExec") || plan.name() == "UnnestExec";
            Ok(match widens {
                true => Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        };
        Ok(plan.transform_up(yielding)?.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}
