//! Several ops run as one kernel.

use crate::case::normal;
use crate::{
    Bindings, Bound, Case, Descs, HostTensor, InferError, Op, OpSpec, Precision, Quantize, RmsNorm, Swiglu, TensorDesc,
};
use serde::{Deserialize, Serialize};
use smallvec::{SmallVec, smallvec};
use std::fmt;

/// The chains that fusions make. A backend that knows a pattern runs it as one kernel, bit-identical to its steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// `rmsnorm → quantize`.
    NormQuantize,
    /// `swiglu → quantize`.
    SwigluQuantize,
}

/// Where a step's operand comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// Operand `i` of the fused op.
    Operand(usize),
    /// Output `1` of step `0`.
    Step(usize, usize),
}

/// One op of the chain.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// What it does.
    pub op: Op,
    /// On what.
    pub ins: SmallVec<[Source; 4]>,
}

/// A chain of ops whose inner values are not stored. Its outputs are the last step's.
///
/// Shape rule, reference and cost follow from the steps, so a fusion can't redefine what it fuses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Fused {
    /// Which chain.
    pub pattern: Pattern,
    /// Its ops, in order.
    pub steps: Vec<Step>,
}

impl Fused {
    /// `norm`, then [`Quantize`].
    pub fn norm_quantize(norm: RmsNorm) -> Fused {
        Self::then_quantize(Pattern::NormQuantize, norm.into(), 2)
    }

    /// [`Swiglu`], then [`Quantize`].
    pub fn swiglu_quantize() -> Fused {
        Self::then_quantize(Pattern::SwigluQuantize, Swiglu {}.into(), 2)
    }

    fn then_quantize(pattern: Pattern, first: Op, operands: usize) -> Fused {
        let ins = (0..operands).map(Source::Operand).collect();
        let last = Step { op: Quantize {}.into(), ins: smallvec![Source::Step(0, 0)] };
        Fused { pattern, steps: vec![Step { op: first, ins }, last] }
    }

    /// The outputs of every step. The operands must have passed [`OpSpec::infer`].
    fn values(&self, ins: &[&HostTensor]) -> Vec<Vec<HostTensor>> {
        let mut done: Vec<Vec<HostTensor>> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let operand = |s: &Source| match *s {
                Source::Operand(i) => ins[i],
                Source::Step(i, out) => &done[i][out],
            };
            let operands: Vec<&HostTensor> = step.ins.iter().map(operand).collect();
            done.push(step.op.spec().reference(&operands));
        }
        done
    }
}

impl fmt::Display for Fused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fused(")?;
        for (i, s) in self.steps.iter().enumerate() {
            write!(f, "{}{}", if i > 0 { " → " } else { "" }, s.op)?;
        }
        f.write_str(")")
    }
}

impl OpSpec for Fused {
    fn name(&self) -> &'static str {
        match self.pattern {
            Pattern::NormQuantize => "norm_quantize",
            Pattern::SwigluQuantize => "swiglu_quantize",
        }
    }

    fn operands(&self) -> &'static [&'static str] {
        match self.pattern {
            Pattern::NormQuantize => &["x", "weight"],
            Pattern::SwigluQuantize => &["gate", "up"],
        }
    }

    fn infer(&self, ins: &[&TensorDesc]) -> Result<Descs, InferError> {
        let n = self.operands().len();
        crate::spec::arity(self, ins, "2", n, n)?;
        let bad = |s: &Source, i: usize| match *s {
            Source::Operand(o) => o >= n,
            Source::Step(at, _) => at >= i,
        };
        let missing = || InferError::Attribute("a step reads an operand or an output that is not there".into());
        if self.steps.is_empty() || self.steps.iter().enumerate().any(|(i, s)| s.ins.iter().any(|x| bad(x, i))) {
            return Err(missing());
        }
        let mut done: Vec<Descs> = Vec::with_capacity(self.steps.len());
        for step in &self.steps {
            let operand = |s: &Source| match *s {
                Source::Operand(i) => Ok(ins[i]),
                Source::Step(i, out) => done[i].get(out).ok_or_else(&missing),
            };
            let operands = step.ins.iter().map(operand).collect::<Result<Vec<_>, _>>()?;
            done.push(step.op.spec().infer(&operands)?);
        }
        Ok(done.pop().unwrap_or_default())
    }

    fn reference(&self, ins: &[&HostTensor]) -> Vec<HostTensor> {
        self.values(ins).pop().unwrap_or_default()
    }

    fn error_bound(&self, ins: &[&HostTensor], outs: &[HostTensor], p: Precision) -> Vec<Bound> {
        // Both patterns are one real-valued op and then `quantize`, through which its error is carried.
        let first = self.values(ins).swap_remove(0);
        let err = self.steps[0].op.spec().error_bound(ins, &first, p).swap_remove(0);
        Quantize {}.carried(&[&first[0]], &err, outs, p)
    }

    fn flops(&self, ins: &[&TensorDesc], _: &[TensorDesc], at: &Bindings) -> u64 {
        let (mut done, mut flops) = (Vec::<Descs>::with_capacity(self.steps.len()), 0);
        for step in &self.steps {
            let operand = |s: &Source| match *s {
                Source::Operand(i) => ins[i],
                Source::Step(i, out) => &done[i][out],
            };
            let operands: Vec<&TensorDesc> = step.ins.iter().map(operand).collect();
            // What does not fit was refused when the graph was built.
            let Ok(outs) = step.op.spec().infer(&operands) else { return flops };
            flops += step.op.spec().flops(&operands, &outs, at);
            done.push(outs);
        }
        flops
    }

    fn cases() -> Vec<Case> {
        let mut cases = Vec::new();
        for (t, n) in [(1, 576), (5, 4096), (3, 32)] {
            let name = format!("{t}x{n}");
            let norm = Fused::norm_quantize(RmsNorm { eps: 1e-5 });
            cases.push(Case::new(name.clone(), norm, vec![normal(24, &[t, n]), normal(25, &[n])]));
            cases.push(Case::new(name, Fused::swiglu_quantize(), vec![normal(26, &[t, n]), normal(27, &[t, n])]));
        }
        cases
    }
}
