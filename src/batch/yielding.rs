//! Joins that can be stopped. A query ends at the next point at which it yields to the runtime, and the engine lets it
//! yield where it reads. A join makes many rows of few that it has read: one of a date with itself would go on for minutes
//! after its run was cancelled, and hold a batch thread.
//!
//! So a join yields as it gives rows. One whose condition takes nearly none of them gives none for long: there the
//! condition itself asks whether the run was cancelled, with each batch of rows that it looks at.

use std::fmt::{self, Display, Formatter};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, FieldRef, Schema};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::{ExecutionPlan, PhysicalExpr};

use super::{BatchError, TaskContext};

/// Lets whatever gives more rows than it takes yield as it gives them, and stop where it gives none.
#[derive(Debug)]
pub struct YieldingJoins {
    /// The task whose query it is; none where nobody cancels it.
    pub task: Option<TaskContext>,
}

impl PhysicalOptimizerRule for YieldingJoins {
    fn name(&self) -> &str {
        "YieldingJoins"
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let yielding = |plan: Arc<dyn ExecutionPlan>| {
            let widens = plan.name().ends_with("JoinExec") || plan.name() == "UnnestExec";
            if !widens {
                return Ok(Transformed::no(plan));
            }
            let plan = match &self.task {
                Some(task) => stoppable(plan, task)?,
                None => plan,
            };
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(plan)) as Arc<dyn ExecutionPlan>))
        };
        Ok(plan.transform_up(yielding)?.data)
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// A join whose condition ends it once the task is cancelled. Those of other kinds read as they go.
fn stoppable(plan: Arc<dyn ExecutionPlan>, task: &TaskContext) -> Result<Arc<dyn ExecutionPlan>> {
    if let Some(join) = plan.downcast_ref::<HashJoinExec>()
        && let Some(filter) = join.filter()
    {
        return join.builder().with_filter(Some(asking(filter, task))).build_exec();
    }
    if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>()
        && let Some(filter) = join.filter()
    {
        let join = NestedLoopJoinExecBuilder::from(join).with_filter(Some(asking(filter, task))).build()?;
        return Ok(Arc::new(join));
    }
    Ok(plan)
}

fn asking(filter: &JoinFilter, task: &TaskContext) -> JoinFilter {
    let condition = Asking { condition: filter.expression().clone(), task: task.clone() };
    JoinFilter::new(Arc::new(condition), filter.column_indices().to_vec(), filter.schema().clone())
}

/// A condition that fails once its task is cancelled.
#[derive(Debug)]
struct Asking {
    condition: Arc<dyn PhysicalExpr>,
    task: TaskContext,
}

impl Display for Asking {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}

impl PartialEq for Asking {
    fn eq(&self, other: &Self) -> bool {
        self.condition.eq(&other.condition)
    }
}

impl Eq for Asking {}

impl Hash for Asking {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl PhysicalExpr for Asking {
    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.condition.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.condition.nullable(schema)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        self.task.check().map_err(|cancelled| DataFusionError::External(Box::new(cancelled)))?;
        self.condition.evaluate(batch)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, mut children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        match children.pop() {
            Some(condition) => Ok(Arc::new(Self { condition, task: self.task.clone() })),
            None => Ok(self),
        }
    }

    fn fmt_sql(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}

/// Whether a query ended because its task was cancelled.
pub fn was_cancelled(e: &DataFusionError) -> bool {
    let DataFusionError::External(cause) = e.find_root() else { return false };
    matches!(cause.downcast_ref(), Some(BatchError::Cancelled))
}
