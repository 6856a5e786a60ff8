//! Whether a model's rows are a function of the tables that it reads: not of the time, of chance, or of the order in which
//! rows happen to be read. A table that is computed again must get the same rows.
//!
//! What cannot be right is a mistake, found in the text. Where it depends on the rows, as where an order may leave some of
//! them equal, the author is told.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::SessionState;
use datafusion::logical_expr::expr::Sort;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan, Volatility, WindowFrame, WindowFrameUnits};
use datafusion::sql::sqlparser::ast::{
    self, Distinct, Function, FunctionArgumentClause, FunctionArguments, GroupByExpr, LimitClause,
    NamedWindowDefinition, NamedWindowExpr, PipeOperator, Query, Select, SelectItem, SetExpr, Spanned, Visit, Visitor,
    WindowFrameBound, WindowSpec, WindowType,
};

use super::super::model::Mistakes;

const WHY: &str = "rows must be a function of the tables: a model that is run again must give the same ones";
/// Aggregates of the order in which rows come.
const ORDERED: [&str; 5] = ["array_agg", "first_value", "last_value", "nth_value", "string_agg"];
/// Functions of windows that tell rows apart which their order leaves equal.
const BY_PLACE: [&str; 4] = ["lag", "lead", "ntile", "row_number"];
/// Functions that are never exact, and those that are.
const LOOSE: [(&str, &str); 4] = [
    ("any_value", "min() or max()"),
    ("approx_median", "median()"),
    ("approx_percentile_cont", "percentile_cont()"),
    ("approx_percentile_cont_with_weight", "percentile_cont()"),
];
/// Aggregates that add up fractions, whatever their arguments are.
const FRACTIONS: [&str; 5] = ["corr", "covar", "regr", "stddev", "var"];

/// Functions that a model calls, by their own names, with the lines that call them.
pub(super) type Calls = Vec<(String, usize)>;

/// Finds what gives other rows at each run, whatever the tables hold.
pub(super) fn check(statement: &ast::Statement, state: &SessionState, mistakes: &mut Mistakes<'_>) -> Calls {
    let mut found = Found { state, windows: Vec::new(), exists: None, calls: Calls::new(), mistakes };
    let _ = statement.visit(&mut found);
    found.calls
}

struct Found<'a, 'm> {
    state: &'a SessionState,
    /// The named windows of the SELECTs around.
    windows: Vec<Vec<NamedWindowDefinition>>,
    /// The query of an EXISTS that is about to be looked at: which rows it takes is asked by nobody.
    exists: Option<*const Query>,
    calls: Calls,
    mistakes: &'a mut Mistakes<'m>,
}

impl Visitor for Found<'_, '_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        if self.exists.take().is_some_and(|exists| std::ptr::eq(exists, query)) {
            return ControlFlow::Continue(());
        }
        match &query.limit_clause {
            Some(LimitClause::LimitOffset { limit: None, offset: None, .. }) | None => {}
            Some(clause) if query.order_by.is_none() && !self.is_one_row(&query.body) => self.unordered(line(clause)),
            Some(_) => {}
        }
        match &*query.body {
            SetExpr::Select(select) if query.order_by.is_none() => self.distinct(select),
            SetExpr::Select(_) => {}
            // ORDER BY at the end is that of the whole.
            body => self.distinct_of(body),
        }
        let mut ordered = query.order_by.is_some();
        for operator in &query.pipe_operators {
            match operator {
                PipeOperator::OrderBy { .. } => ordered = true,
                PipeOperator::Limit { expr, .. } if !ordered => self.unordered(line(expr)),
                PipeOperator::Limit { .. }
                | PipeOperator::Where { .. }
                | PipeOperator::Select { .. }
                | PipeOperator::Extend { .. }
                | PipeOperator::As { .. } => {}
                _ => ordered = false,
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        self.windows.push(select.named_window.clone());
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<()> {
        self.windows.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &ast::Expr) -> ControlFlow<()> {
        match expr {
            ast::Expr::Function(function) => self.call(function),
            ast::Expr::Exists { subquery, .. } => self.exists = Some(&raw const **subquery),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

impl Found<'_, '_> {
    fn wrong(&mut self, line: Option<usize>, what: impl Into<String>, add: &str) {
        self.mistakes.add(line, what, format!("add {add} with columns that are unique together; {WHY}"));
    }

    fn unordered(&mut self, line: Option<usize>) {
        self.wrong(line, "LIMIT without ORDER BY takes whichever rows come first", "ORDER BY");
    }

    fn distinct(&mut self, select: &Select) {
        if let Some(Distinct::On(columns)) = &select.distinct {
            let line = columns.first().and_then(line).or_else(|| line(select));
            self.wrong(line, "DISTINCT ON without ORDER BY takes whichever row comes first", "ORDER BY");
        }
    }

    fn distinct_of(&mut self, body: &SetExpr) {
        match body {
            SetExpr::Select(select) => self.distinct(select),
            SetExpr::SetOperation { left, right, .. } => [left, right].into_iter().for_each(|of| self.distinct_of(of)),
            // One in parentheses is looked at for itself.
            _ => {}
        }
    }

    /// Whether it gives one row at most, as an aggregate of all rows does.
    fn is_one_row(&self, body: &SetExpr) -> bool {
        let SetExpr::Select(select) = body else { return false };
        let whole = matches!(&select.group_by, GroupByExpr::Expressions(by, _) if by.is_empty());
        let mut items = select.projection.iter();
        whole
            && items.any(|item| match item {
                SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => self.is_aggregate(expr),
                _ => false,
            })
    }

    fn is_aggregate(&self, expr: &ast::Expr) -> bool {
        match expr {
            ast::Expr::Function(function) => {
                let aggregate = |name| self.state.aggregate_functions().contains_key(&name);
                function.over.is_none() && own_name(function).is_some_and(aggregate)
            }
            ast::Expr::Cast { expr, .. } | ast::Expr::Nested(expr) => self.is_aggregate(expr),
            _ => false,
        }
    }

    fn call(&mut self, function: &Function) {
        let line = line(&function.name);
        let Some(name) = own_name(function) else { return };
        if let Some(scalar) = self.state.scalar_functions().get(&name) {
            if scalar.signature().volatility != Volatility::Immutable {
                self.mistakes.add(line, format!("`{}()` gives another value at each run", scalar.name()), WHY);
            }
            return;
        }
        let aggregate = self.state.aggregate_functions().get(&name).map(|f| f.name().to_owned());
        let name = aggregate.unwrap_or(name);
        self.calls.extend(line.map(|line| (name.clone(), line)));
        if let Some((_, exact)) = LOOSE.iter().find(|(loose, _)| *loose == name) {
            let what = format!("`{name}()` depends on the order in which rows are read");
            self.mistakes.add(line, what, format!("use {exact}; {WHY}"));
            return;
        }
        let in_order = in_order(function);
        let needs_order = ORDERED.contains(&name.as_str()) && !in_order;
        match &function.over {
            None if needs_order => {
                let what = format!("`{name}()` without ORDER BY takes rows as they come");
                self.wrong(line, what, &format!("ORDER BY inside its parentheses, as in {name}(x ORDER BY y),"));
            }
            None => {}
            Some(over) => {
                let Some(window) = self.window(over) else {
                    let what = format!("`{name}()` is over a window that is defined by itself");
                    self.mistakes.add(line, what, "give each name after WINDOW a definition that ends in parentheses");
                    return;
                };
                if !window.ordered && (needs_order || window.by_place || BY_PLACE.contains(&name.as_str())) {
                    let what = format!("`{name}()` over a window without ORDER BY takes rows as they come");
                    self.wrong(line, what, "ORDER BY to the window");
                }
            }
        }
    }

    /// None of a window that is defined by itself.
    fn window(&self, over: &WindowType) -> Option<Window> {
        // No chain of names is longer than there are windows.
        let most = self.windows.last().map_or(0, Vec::len);
        match over {
            WindowType::WindowSpec(spec) => self.specified(spec, most),
            WindowType::NamedWindow(name) => self.named(name, most),
        }
    }

    fn specified(&self, spec: &WindowSpec, most: usize) -> Option<Window> {
        let base = match &spec.window_name {
            Some(name) => self.named(name, most)?,
            None => Window::default(),
        };
        let by_place = spec.window_frame.as_ref().is_some_and(|frame| {
            let whole = matches!(frame.start_bound, WindowFrameBound::Preceding(None))
                && matches!(frame.end_bound, Some(WindowFrameBound::Following(None)));
            frame.units == ast::WindowFrameUnits::Rows && !whole
        });
        Some(Window { ordered: base.ordered || !spec.order_by.is_empty(), by_place: base.by_place || by_place })
    }

    fn named(&self, name: &ast::Ident, most: usize) -> Option<Window> {
        let defined = self.windows.last().and_then(|all| all.iter().find(|w| w.0.value == name.value));
        // One that is defined nowhere is the planner's to refuse.
        let Some(defined) = defined else { return Some(Window { ordered: true, by_place: false }) };
        let most = most.checked_sub(1)?;
        match &defined.1 {
            NamedWindowExpr::WindowSpec(spec) => self.specified(spec, most),
            NamedWindowExpr::NamedWindow(other) => self.named(other, most),
        }
    }
}

/// What of a window matters here.
#[derive(Default)]
struct Window {
    ordered: bool,
    /// Its frame counts rows.
    by_place: bool,
}

/// A function's name without those of its schema.
fn own_name(function: &Function) -> Option<String> {
    function.name.0.last().map(|part| part.to_string().trim_matches('"').to_lowercase())
}

/// Whether an aggregate has an order of its own.
fn in_order(function: &Function) -> bool {
    let FunctionArguments::List(list) = &function.args else { return false };
    let ordered =
        |clause: &FunctionArgumentClause| matches!(clause, FunctionArgumentClause::OrderBy(by) if !by.is_empty());
    !function.within_group.is_empty() || list.clauses.iter().any(ordered)
}

/// The first line of something in the text, where it is known.
fn line(of: &impl Spanned) -> Option<usize> {
    usize::try_from(of.span().start.line).ok().filter(|line| *line > 0)
}

/// Tells of what may give other rows: orders that leave rows equal, fractions added up. `plan` is optimized, over tables
/// whose keys are known.
pub(super) fn doubts(plan: &LogicalPlan, calls: &Calls, remarks: &mut Mistakes<'_>) {
    let mut told = BTreeSet::new();
    let mut tell = |line: Option<usize>, what: String, hint: &str| {
        if told.insert((line, what.clone())) {
            remarks.add(line, what, hint);
        }
    };
    let called = |name: &str| calls.iter().find(|(call, _)| call == name).map(|(_, line)| *line);
    let _ = plan.apply_with_subqueries(|node| {
        match node {
            LogicalPlan::Window(window) => {
                for expr in &window.window_expr {
                    let Expr::WindowFunction(call) = expr.clone().unalias() else { continue };
                    let (name, of) = (call.fun.name().to_owned(), &call.params);
                    let by_place = BY_PLACE.contains(&name.as_str()) || ORDERED.contains(&name.as_str());
                    let keys = of.partition_by.iter().chain(of.order_by.iter().map(|sort| &sort.expr));
                    if (by_place || counts_rows(&of.window_frame)) && !tells_apart(window.input.schema(), keys) {
                        let line = line_of(of.order_by.iter().map(|sort| &sort.expr)).or_else(|| called(&name));
                        tell(line, equal(&name), EQUAL);
                    }
                    if rounds(&name, &of.args, window.input.schema()) {
                        tell(line_of(&of.args).or_else(|| called(&name)), rounding(&name), ROUNDS);
                    }
                }
            }
            LogicalPlan::Aggregate(aggregate) => {
                for expr in &aggregate.aggr_expr {
                    let Expr::AggregateFunction(call) = expr.clone().unalias() else { continue };
                    let (name, of) = (call.func.name().to_owned(), &call.params);
                    let schema = aggregate.input.schema();
                    if ORDERED.contains(&name.as_str()) && !of.order_by.is_empty() {
                        let by = || of.order_by.iter().map(|sort| &sort.expr);
                        // Rows that are equal in all that is taken of them may stand in any order.
                        let taken = of.args.iter().all(|arg| arg.as_literal().is_some() || by().any(|by| by == arg));
                        if !taken && !tells_apart(schema, aggregate.group_expr.iter().chain(by())) {
                            let line = line_of(by()).or_else(|| called(&name));
                            tell(line, equal(&name), EQUAL);
                        }
                    }
                    if rounds(&name, &of.args, schema) {
                        tell(line_of(&of.args).or_else(|| called(&name)), rounding(&name), ROUNDS);
                    }
                }
            }
            LogicalPlan::Sort(sort) if sort.fetch.is_some() => limited(&sort.expr, &sort.input, &mut tell),
            LogicalPlan::Limit(limit) => {
                if let LogicalPlan::Sort(sort) = &*limit.input {
                    limited(&sort.expr, &sort.input, &mut tell);
                }
            }
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
}

const EQUAL: &str =
    "add columns to ORDER BY until they are unique together, as silver's event_id or the grain of a model is";
const ROUNDS: &str = "add up whole numbers or decimals, which is exact: CAST(sum(CAST(x AS DECIMAL(18, 4))) AS DOUBLE)";

fn limited(by: &[Sort], input: &LogicalPlan, tell: &mut impl FnMut(Option<usize>, String, &str)) {
    if !tells_apart(input.schema(), by.iter().map(|sort| &sort.expr)) {
        let what = "rows may be equal in the order of LIMIT: which of them it takes is left to chance";
        tell(line_of(by.iter().map(|sort| &sort.expr)), what.into(), EQUAL);
    }
}

fn equal(name: &str) -> String {
    format!("rows may be equal in the order of `{name}()`: which of them is first is left to chance")
}

fn rounding(name: &str) -> String {
    format!("`{name}()` rounds by the order in which rows are read: the last digits may differ from run to run")
}

/// Whether an aggregate adds up fractions: another order rounds otherwise.
fn rounds(name: &str, args: &[Expr], schema: &DFSchema) -> bool {
    let fraction =
        |arg: &Expr| arg.get_type(schema).is_ok_and(|kind| matches!(kind, DataType::Float32 | DataType::Float64));
    match name {
        // Whole numbers are exact as far as a DOUBLE counts.
        "sum" | "avg" => args.iter().any(fraction),
        _ => FRACTIONS.iter().any(|family| name.starts_with(family)),
    }
}

fn counts_rows(frame: &WindowFrame) -> bool {
    let whole = frame.start_bound.is_unbounded() && frame.end_bound.is_unbounded();
    frame.units == WindowFrameUnits::Rows && !whole
}

/// Whether rows that are equal in these are equal in every column: the keys of the tables, and what follows from them.
fn tells_apart<'a>(schema: &DFSchema, keys: impl Iterator<Item = &'a Expr>) -> bool {
    let column = |expr: &Expr| match expr {
        Expr::Column(column) => schema.maybe_index_of_column(column),
        _ => None,
    };
    let mut known: BTreeSet<usize> = keys.filter_map(column).collect();
    loop {
        let follows = schema.functional_dependencies().iter().find(|of| {
            of.source_indices.iter().all(|i| known.contains(i)) && !of.target_indices.iter().all(|i| known.contains(i))
        });
        match follows {
            Some(of) => known.extend(&of.target_indices),
            None => return known.len() >= schema.fields().len(),
        }
    }
}

/// The line of the first column among these that knows its place.
fn line_of<'a>(exprs: impl IntoIterator<Item = &'a Expr>) -> Option<usize> {
    let place = |column: &Column| column.spans.first().and_then(|span| usize::try_from(span.start.line).ok());
    exprs.into_iter().find_map(|expr| {
        let columns = expr.column_refs();
        columns.into_iter().filter_map(place).min()
    })
}
