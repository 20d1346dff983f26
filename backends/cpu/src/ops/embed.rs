//! `embed`: rows of a table where it lies, dequantised on the way.

use super::{Cut, Kernel, Lowering, Memory, Place};
use crate::weights::Mapped;
use greta_ops::{Bindings, DType, TensorDesc, quant};

pub(super) struct Embed {
    cut: Cut,
    table: Table,
    desc: TensorDesc,
    ids: Place,
    ids_desc: TensorDesc,
    out: Place,
}

enum Table {
    Mapped(Mapped),
    /// f32 rows that an op gave.
    Computed(Place),
}

impl Embed {
    pub fn new(l: Lowering) -> Embed {
        let table = match &l.ins[0] {
            Place::Weight(id) => Table::Mapped(l.prepared.mapped[id].clone()),
            place => Table::Computed(place.clone()),
        };
        Embed {
            cut: Cut { threads: l.threads, least: 4 },
            table,
            desc: l.descs[0].clone(),
            ids: l.ins[1].clone(),
            ids_desc: l.descs[1].clone(),
            out: l.outs[0].clone(),
        }
    }
}

impl Kernel for Embed {
    fn chunks(&self, m: &Memory) -> usize {
        self.cut.chunks(self.ids_desc.elements(&m.at))
    }

    unsafe fn run(&self, m: &Memory, chunk: usize) {
        let (n, count) = (self.desc.cols().at(&m.at), self.ids_desc.elements(&m.at));
        let rows = self.desc.rows().at(&m.at);
        // SAFETY: the operands have these sizes.
        let ids: &[i32] = unsafe { m.read(&self.ids, count) };
        let (dtype, bytes) = match &self.table {
            Table::Mapped(w) => (w.dtype, w.bytes()),
            // SAFETY: as above; any bytes may be read as such.
            Table::Computed(p) => (DType::F32, unsafe { m.read(p, rows * n * 4) }),
        };
        let row = n / dtype.block_len() * dtype.block_bytes();
        for i in self.cut.range(count, chunk) {
            // SAFETY: row i is this chunk's.
            let out: &mut [f32] = unsafe { m.write(&self.out, i * n, n) };
            match usize::try_from(ids[i]).ok().filter(|&id| id < rows) {
                Some(id) => quant::dequantize_row(dtype, &bytes[id * row..][..row], out),
                None => out.fill(f32::NAN),
            }
        }
    }

    fn route(&self, _: &Bindings) -> String {
        "embed".into()
    }
}
