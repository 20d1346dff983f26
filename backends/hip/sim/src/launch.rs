//! Runs a kernel: arguments, initial registers, workgroups over host threads, waves in turn.

use crate::counts::Counts;
use crate::cpu::{Cpu, Lanes, Stop, Tally, Wave, fault};
use crate::fault::{Cause, Fault, Location, What};
use crate::inst::Class;
use crate::lds::Lds;
use crate::memory::{Memory, Region};
use crate::program::{KernelInfo, Program};
use crate::view::View;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Where the kernel's arguments and its dispatch packet lie while it runs.
const KERNARG: u64 = 0x5000_0000_0000;
const PACKET: u64 = 0x5800_0000_0000;
/// LDS of a compute unit.
const LDS_LIMIT: u32 = 65536;
/// Instructions a wave runs before another has its turn, so that waves may wait for each other.
const SLICE: u64 = 1 << 20;
/// Instructions after which a wave is taken to run for ever, if the launch doesn't say otherwise.
pub const LIMIT: u64 = 1 << 28;

/// A launch of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The kernel's name.
    pub kernel: &'a str,
    /// Workgroups in x, y and z.
    pub grid: [u32; 3],
    /// Work-items of a workgroup in x, y and z.
    pub block: [u32; 3],
    /// Bytes of LDS beyond what the kernel declares.
    pub dynamic_lds: u32,
    /// The explicit arguments, each at its offset. Hidden ones are filled in.
    pub args: &'a [u8],
    /// What the kernel may touch: addresses, and how many bytes from there on. With none of them it may touch every
    /// allocation.
    pub live: &'a [(u64, u64)],
    /// Instructions after which a wave is taken to run for ever, see [`LIMIT`].
    pub limit: u64,
}

/// Runs a launch to its end on `threads` host threads. Results don't depend on their number, except through the order of
/// atomics.
pub fn run(program: &Program, memory: &Memory, launch: &Launch<'_>, threads: usize) -> Result<Counts, Fault> {
    let refuse = |why: String| Fault::BadLaunch { kernel: launch.kernel.into(), why };
    let kernel = program.kernel(launch.kernel).ok_or_else(|| refuse("there is no such kernel".into()))?;
    check(kernel, launch).map_err(refuse)?;
    let args = arguments(kernel, launch).ok_or_else(|| refuse("no memory for the arguments".into()))?;
    let packet = packet(kernel, launch).ok_or_else(|| refuse("no memory for the dispatch packet".into()))?;
    let own = [Arc::new(args), Arc::new(packet), program.image.clone()];
    let view = View::of(memory, own, launch.live).map_err(|e| refuse(format!("what is live: {e}")))?;
    let groups: u64 = launch.grid.iter().map(|n| u64::from(*n)).product();
    let next = AtomicU64::new(0);
    let stopped = AtomicBool::new(false);
    // Of several faults the one of the first workgroup is reported, whatever thread ran it.
    let result = Mutex::new((Counts::default(), None::<(u64, Fault)>));
    let work = || {
        let mut group = Group::new(program, kernel, launch, (&view, memory));
        while !stopped.load(Relaxed) {
            let n = next.fetch_add(1, Relaxed);
            if n >= groups {
                break;
            }
            if let Err(fault) = group.run(n) {
                stopped.store(true, Relaxed);
                let mut r = result.lock().unwrap_or_else(PoisonError::into_inner);
                if r.1.as_ref().is_none_or(|(first, _)| n < *first) {
                    r.1 = Some((n, fault));
                }
            }
        }
        result.lock().unwrap_or_else(PoisonError::into_inner).0 += group.counts();
    };
    let threads = threads.clamp(1, groups.max(1) as usize);
    if threads == 1 {
        work();
    } else {
        std::thread::scope(|s| (0..threads).for_each(|_| drop(s.spawn(work))));
    }
    let (counts, fault) = result.into_inner().unwrap_or_else(PoisonError::into_inner);
    fault.map_or(Ok(counts), |(_, f)| Err(f))
}

fn check(kernel: &KernelInfo, launch: &Launch<'_>) -> Result<(), String> {
    let items: u64 = launch.block.iter().map(|n| u64::from(*n)).product();
    if items == 0 || launch.grid.contains(&0) {
        return Err(format!("an empty grid {:?} or block {:?}", launch.grid, launch.block));
    }
    let most = if kernel.max_workgroup == 0 { 1024 } else { kernel.max_workgroup };
    if items > u64::from(most) {
        return Err(format!("{items} work-items in a workgroup; the kernel allows {most}"));
    }
    let lds = u64::from(kernel.lds_bytes) + u64::from(launch.dynamic_lds);
    if lds > LDS_LIMIT.into() {
        return Err(format!("{lds} bytes of LDS; a compute unit has {LDS_LIMIT}"));
    }
    let explicit = kernel.args.iter().filter(|a| !a.kind.starts_with("hidden_"));
    let need = explicit.map(|a| a.offset + a.size).max().unwrap_or(0) as usize;
    if launch.args.len() != need {
        return Err(format!("{} bytes of arguments; the kernel takes {need}", launch.args.len()));
    }
    // Rounding to nearest (bits 12 to 15) and denormals kept (16 to 19).
    if kernel.rsrc1 >> 12 & 0xff != 0xf0 {
        return Err("a rounding or denormal mode other than the default".into());
    }
    // Dispatch pointer and argument pointer.
    if kernel.properties & 0x7f & !0b1010 != 0 {
        return Err(format!("user registers other than the argument and dispatch pointers ({:#x})", kernel.properties));
    }
    Ok(())
}

/// The argument segment: explicit arguments as given, hidden ones by their kind.
fn arguments(kernel: &KernelInfo, launch: &Launch<'_>) -> Option<Region> {
    // Compilers read a segment in wide pieces, which may reach past its end: it is as large as its alignment makes it.
    let size = u64::from(kernel.kernarg_bytes).max(launch.args.len() as u64).next_multiple_of(64);
    let region = Region::new(KERNARG, size, "the kernel's arguments")?;
    let hidden = kernel.args.iter().filter(|a| a.kind.starts_with("hidden_"));
    let explicit_end = hidden.clone().map(|a| a.offset as usize).min().unwrap_or(usize::MAX);
    region.write(0, &launch.args[..launch.args.len().min(explicit_end)]);
    for a in hidden {
        let axis = match a.kind.as_bytes().last() {
            Some(b'y') => 1,
            Some(b'z') => 2,
            _ => 0,
        };
        let value = match a.kind.trim_end_matches(['x', 'y', 'z']) {
            "hidden_block_count_" => launch.grid[axis].into(),
            "hidden_group_size_" => launch.block[axis].into(),
            "hidden_grid_dims" => (0..3).rfind(|n| launch.grid[*n] * launch.block[*n] > 1).map_or(1, |n| n as u64 + 1),
            "hidden_dynamic_lds_size" => launch.dynamic_lds.into(),
            "hidden_shared_base" => crate::operand::SHARED_BASE >> 32,
            "hidden_private_base" => crate::operand::PRIVATE_BASE >> 32,
            // Remainders and global offsets: workgroups are whole, and begin at zero.
            _ => 0u64,
        };
        if u64::from(a.offset) + u64::from(a.size) <= size && a.size <= 8 {
            region.write(a.offset.into(), &value.to_le_bytes()[..a.size as usize]);
        }
    }
    Some(region)
}

/// The dispatch packet, for kernels that read sizes from it.
fn packet(kernel: &KernelInfo, launch: &Launch<'_>) -> Option<Region> {
    let region = Region::new(PACKET, 64, "the dispatch packet")?;
    let mut bytes = [0u8; 64];
    for axis in 0..3 {
        bytes[4 + 2 * axis..6 + 2 * axis].copy_from_slice(&(launch.block[axis] as u16).to_le_bytes());
        let items = launch.grid[axis].wrapping_mul(launch.block[axis]);
        bytes[12 + 4 * axis..16 + 4 * axis].copy_from_slice(&items.to_le_bytes());
    }
    bytes[28..32].copy_from_slice(&(kernel.lds_bytes + launch.dynamic_lds).to_le_bytes());
    region.write(0, &bytes);
    Some(region)
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ready,
    /// Waits at the barrier with this instruction index.
    Barrier(usize),
    Ended,
}

/// Waves and LDS of a workgroup, used again for the next one.
struct Group<'a> {
    program: &'a Program,
    kernel: &'a KernelInfo,
    launch: &'a Launch<'a>,
    view: &'a View,
    memory: &'a Memory,
    waves: Vec<Wave>,
    states: Vec<State>,
    /// Instructions that each wave ran.
    ran: Vec<u64>,
    lds: Lds,
    tally: Tally,
    groups: u64,
}

impl<'a> Group<'a> {
    fn new(
        program: &'a Program,
        kernel: &'a KernelInfo,
        launch: &'a Launch<'a>,
        (view, memory): (&'a View, &'a Memory),
    ) -> Group<'a> {
        let items = launch.block.iter().product::<u32>();
        let waves = items.div_ceil(64);
        let lds = Lds::new(kernel.lds_bytes + launch.dynamic_lds, waves as usize);
        Group {
            program,
            kernel,
            launch,
            view,
            memory,
            waves: (0..waves).map(|_| Wave::new(&program.consts)).collect(),
            states: vec![State::Ready; waves as usize],
            ran: vec![0; waves as usize],
            lds,
            tally: Tally::default(),
            groups: 0,
        }
    }

    fn counts(&self) -> Counts {
        let waves = self.groups * self.waves.len() as u64;
        Counts { waves, workgroups: self.groups, lds_bytes: self.lds.size.into(), ..Counts::of(&self.tally) }
    }

    fn run(&mut self, n: u64) -> Result<(), Fault> {
        let [gx, gy, _] = self.launch.grid.map(u64::from);
        let id = [(n % gx) as u32, (n / gx % gy) as u32, (n / (gx * gy)) as u32];
        self.groups += 1;
        self.lds.reset();
        self.states.fill(State::Ready);
        for w in 0..self.waves.len() {
            self.start(w, id);
        }
        self.ran.fill(0);
        loop {
            for w in 0..self.waves.len() {
                if self.states[w] == State::Ready {
                    self.states[w] = match self.step(w) {
                        Stop::End => State::Ended,
                        Stop::Barrier => State::Barrier(self.waves[w].pc - 1),
                        Stop::Yield => State::Ready,
                        Stop::Fault(cause) => return Err(self.fault(*cause, w, id)),
                    };
                }
            }
            if let Some(w) = self.ran.iter().position(|ran| *ran > self.launch.limit) {
                let cause = Cause { lane: None, what: What::Runaway { instructions: self.launch.limit } };
                return Err(self.fault(cause, w, id));
            }
            if self.states.iter().all(|s| *s == State::Ended) {
                return Ok(());
            }
            if !self.states.contains(&State::Ready) {
                self.meet(id)?;
            }
        }
    }

    /// All waves wait or have ended: they must wait at one barrier.
    fn meet(&mut self, id: [u32; 3]) -> Result<(), Fault> {
        let waiting = self.states.iter().position(|s| matches!(s, State::Barrier(_))).unwrap_or(0);
        if let Some(other) = self.states.iter().position(|s| *s != self.states[waiting]) {
            let why = match self.states[other] {
                State::Ended => format!("wave {other} has ended and does not reach it"),
                State::Barrier(at) => format!("wave {other} waits at another one, pc {:#x}", self.program.insts[at].pc),
                State::Ready => "a wave still runs".into(),
            };
            return Err(self.fault(Cause { lane: None, what: What::Barrier { why } }, waiting, id));
        }
        self.lds.barrier();
        self.states.fill(State::Ready);
        Ok(())
    }

    /// Registers as the hardware sets them up.
    fn start(&mut self, w: usize, id: [u32; 3]) {
        let [bx, by, bz] = self.launch.block;
        let (kernel, items, first) = (self.kernel, bx * by * bz, w as u32 * 64);
        let wave = &mut self.waves[w];
        wave.reset();
        wave.id = w as u32;
        wave.pc = kernel.entry;
        let lanes = (items - first).min(64);
        let exec = if lanes == 64 { !0 } else { (1u64 << lanes) - 1 };
        wave.set_s64(126, exec, true);
        wave.initial_exec = exec;
        let mut ids = Lanes::ZERO;
        for l in 0..lanes {
            let t = first + l;
            ids.0[l as usize] = (t % bx) | ((t / bx % by) << 10) | (t / (bx * by)) << 20;
        }
        wave.regs[0] = ids;
        wave.init[0] = exec;
        let mut s = 0;
        for (bit, value) in [(1, PACKET), (3, KERNARG)] {
            if kernel.properties >> bit & 1 != 0 {
                wave.set_s64(s, value, true);
                s += 2;
            }
        }
        let (length, offset) = (kernel.preload & 0x7f, kernel.preload >> 7);
        for n in 0..length {
            let at = u64::from(offset + n) * 4;
            let value = self.view.find(KERNARG + at, 4).map(|(r, _)| (r.load(at, 4), r.known(at, 4)));
            let (x, known) = value.unwrap_or((0, false));
            wave.set_s32(s, x, known);
            s += 1;
        }
        for (axis, value) in id.into_iter().enumerate() {
            if kernel.rsrc2 >> (7 + axis) & 1 != 0 {
                wave.set_s32(s, value, true);
                s += 1;
            }
        }
    }

    /// Runs a wave until it stops.
    fn step(&mut self, w: usize) -> Stop {
        let insts = &self.program.insts[..];
        let mut cx = Cpu { w: &mut self.waves[w], lds: &mut self.lds, mem: self.view, tally: &mut self.tally };
        let ran = &mut self.ran[w];
        for _ in 0..SLICE {
            let Some(i) = insts.get(cx.w.pc) else {
                let why = "execution leaves the listing".into();
                return fault(Cause { lane: None, what: What::Unsupported { why } });
            };
            cx.w.pc += 1;
            *ran += 1;
            cx.tally.class[i.class as usize] += 1;
            // SAFETY: `Decoder` takes the wide functions only if this CPU has the features they are compiled for.
            if let Err(stop) = unsafe { (i.run)(&mut cx, i) } {
                return stop;
            }
        }
        Stop::Yield
    }

    fn fault(&self, cause: Cause, w: usize, workgroup: [u32; 3]) -> Fault {
        let at = self.waves[w].pc.saturating_sub(1).min(self.program.insts.len().saturating_sub(1));
        let text = &self.program.texts[at];
        let place = Location {
            kernel: self.kernel.name.clone(),
            pc: self.program.insts[at].pc,
            instruction: text.text.clone(),
            source: text.source.map(|s| self.program.sources[s as usize].clone()),
            workgroup,
            wave: w as u32,
            lane: cause.lane,
        };
        cause.at(place, (self.view, self.memory), |reg| self.whence(w, reg))
    }

    /// The load that left a vector register of a wave without a value.
    fn whence(&self, w: usize, reg: u16) -> Option<String> {
        let at = (*self.waves[w].holes.get(reg as usize)? as usize).checked_sub(1)?;
        let text = &self.program.texts[at];
        let source = text.source.map_or(String::new(), |s| format!(", source {}", self.program.sources[s as usize]));
        let what = match self.program.insts[at].class {
            Class::Lds => {
                "LDS that no wave had written before the last barrier; if another wave writes it, a barrier is missing"
            }
            _ => "memory that nothing had written",
        };
        Some(format!(
            ": loaded by `{}` from {what}\n  loaded at pc {:#x}{source}",
            text.text, self.program.insts[at].pc
        ))
    }
}
