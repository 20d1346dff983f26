//! The arithmetic of the CPU backend over plain slices: no graph, no threads.
//!
//! **Every row stands alone.** A value of an output row is a function of that row's inputs and the length reduced
//! over; the number of rows, their grouping into tiles and the split of panels among threads change no bit of it, and
//! neither does the instruction set. Each file states its order of f32 operations; integer work is exact.

pub mod add;
#[cfg(target_arch = "x86_64")]
mod amx;
pub mod attention;
mod attention_tile;
pub mod cache;
mod int8_tile;
pub mod matmul_exact;
pub mod matmul_int8;
pub mod panel;
pub mod quantize;
pub mod repack;
pub mod rmsnorm;
pub mod rope;
mod scratch;
pub mod stats;
pub mod swiglu;
mod unpack;

/// `unroll!(8: I < N => { … })` repeats a block with `I` as the constants 0, 1, … below the constant `N` ≤ 8.
///
/// Arrays of vectors stay in registers only if every index is a constant, and the compiler's own unrolling gives up on
/// bodies as large as a matmul's. The comparison is a constant so that a body not wanted is never compiled; the leading
/// number, 2, 4, 8 or 16, keeps the bodies to be looked at few.
macro_rules! unroll {
    (2: $($rest:tt)*) => { unroll!(@ [0 1] $($rest)*) };
    (4: $($rest:tt)*) => { unroll!(@ [0 1 2 3] $($rest)*) };
    (8: $($rest:tt)*) => { unroll!(@ [0 1 2 3 4 5 6 7] $($rest)*) };
    (16: $($rest:tt)*) => { unroll!(@ [0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15] $($rest)*) };
    (@ [$($at:literal)*] $i:ident < $n:expr => $body:block) => {
        {$(#[allow(unconditional_panic, reason = "an index past an array's end stands in a branch never taken")]
        if const { $at < $n } {
            #[allow(non_upper_case_globals, dead_code, reason = "it reads as a loop variable")]
            const $i: usize = $at;
            $body
        })*}
    };
}
use unroll;
