//! What a launch executed.

use crate::cpu::Tally;
use crate::inst::Class;
use std::ops::{Add, AddAssign};

macro_rules! counts {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What one or more launches executed. Instructions are counted once a wave, not once a lane.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Counts {
            $($(#[$doc])* pub $name: u64,)*
            /// Bytes of LDS a workgroup has, the most of all launches.
            pub lds_bytes: u64,
        }

        impl AddAssign for Counts {
            fn add_assign(&mut self, other: Counts) {
                $(self.$name += other.$name;)*
                self.lds_bytes = self.lds_bytes.max(other.lds_bytes);
            }
        }
    };
}

counts! {
    /// Vector ALU instructions that are counted nowhere else.
    valu,
    /// Scalar ALU.
    salu,
    /// Matrix instructions.
    mfma,
    /// Dot product instructions.
    dot,
    /// LDS reads, writes and permutes.
    lds,
    /// Vector loads from global memory.
    vmem_load,
    /// Vector stores to global memory.
    vmem_store,
    /// Scalar loads.
    smem,
    /// Branches, taken or not.
    branch,
    /// Atomics, global and LDS.
    atomic,
    /// Barriers.
    barrier,
    /// Waits, hints and cache control.
    wait,
    /// Anything else.
    other,
    /// Extra cycles that LDS accesses take because lanes want different dwords of one bank.
    lds_bank_conflict_cycles,
    /// Bytes that lanes read from global memory, caches not considered.
    global_bytes_read,
    /// Bytes that lanes wrote to global memory.
    global_bytes_written,
    /// Waves.
    waves,
    /// Workgroups.
    workgroups,
}

impl Counts {
    /// All instructions.
    pub fn instructions(&self) -> u64 {
        let vector = self.valu + self.mfma + self.dot + self.lds + self.vmem_load + self.vmem_store + self.atomic;
        vector + self.salu + self.smem + self.branch + self.barrier + self.wait + self.other
    }

    pub(crate) fn of(t: &Tally) -> Counts {
        let class = |c: Class| t.class[c as usize];
        Counts {
            valu: class(Class::Valu),
            salu: class(Class::Salu),
            mfma: class(Class::Mfma),
            dot: class(Class::Dot),
            lds: class(Class::Lds),
            vmem_load: class(Class::VmemLoad),
            vmem_store: class(Class::VmemStore),
            smem: class(Class::Smem),
            branch: class(Class::Branch),
            atomic: class(Class::Atomic),
            barrier: class(Class::Barrier),
            wait: class(Class::Wait),
            other: class(Class::Other),
            lds_bank_conflict_cycles: t.conflicts,
            global_bytes_read: t.read,
            global_bytes_written: t.written,
            ..Counts::default()
        }
    }
}

impl Add for Counts {
    type Output = Counts;

    fn add(mut self, other: Counts) -> Counts {
        self += other;
        self
    }
}
