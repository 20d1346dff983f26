//! Block formats against vectors made by ggml's `gguf` package (`data/make_quant_vectors.py`), and the synthetic
//! weights that greta draws itself.

use greta_ops::DType;
use greta_ops::quant::{self, Rng};
use libtest_mimic::{Failed, Trial};

static VECTORS: &[u8] = include_bytes!("data/quant_vectors.bin");

/// The tests of this module.
pub fn trials() -> Vec<Trial> {
    let mut trials = vec![
        Trial::test("quant/vectors_cover_every_real_type", every_real_type),
        Trial::test("quant/rng_is_xoshiro256++", rng_known_answer),
        Trial::test("quant/rng_distributions", rng_distributions),
    ];
    for &dtype in DType::ALL.iter().filter(|t| t.is_real()) {
        trials.push(Trial::test(format!("quant/{dtype}/constants"), move || constants(dtype)));
        trials.push(Trial::test(format!("quant/{dtype}/dequantize"), move || dequantize(dtype)));
        trials.push(Trial::test(format!("quant/{dtype}/random"), move || random(dtype)));
        trials.push(Trial::test(format!("quant/{dtype}/non_finite"), move || non_finite(dtype)));
    }
    trials
}

/// One type's record in the vectors' file.
struct Vectors {
    name: &'static str,
    ggml_id: u32,
    block_len: usize,
    block_bytes: usize,
    blocks: &'static [u8],
    expected: Vec<u32>,
}

/// The file's records, in order.
fn vectors() -> Result<Vec<Vectors>, Failed> {
    let mut rest = VECTORS;
    if take(&mut rest, 8)? != b"GRETAQV1" {
        return Err("the vectors' file has another format".into());
    }
    let mut all = Vec::new();
    while !rest.is_empty() {
        let name_len = usize::from(take(&mut rest, 1)?[0]);
        let name = std::str::from_utf8(take(&mut rest, name_len)?)?;
        let header = words(take(&mut rest, 16)?);
        let (block_len, block_bytes, count) = (header[1] as usize, header[2] as usize, header[3] as usize);
        let blocks = take(&mut rest, count * block_bytes)?;
        let expected = words(take(&mut rest, count * block_len * 4)?);
        all.push(Vectors { name, ggml_id: header[0], block_len, block_bytes, blocks, expected });
    }
    Ok(all)
}

fn take(rest: &mut &'static [u8], n: usize) -> Result<&'static [u8], Failed> {
    let (taken, after) = rest.split_at_checked(n).ok_or("the vectors' file is cut short")?;
    *rest = after;
    Ok(taken)
}

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.as_chunks().0.iter().map(|&word| u32::from_le_bytes(word)).collect()
}

fn vectors_of(dtype: DType) -> Result<Vectors, Failed> {
    let found = vectors()?.into_iter().find(|v| v.name == dtype.name());
    found.ok_or_else(|| format!("no vectors for {dtype}").into())
}

fn check(ok: bool, message: impl FnOnce() -> String) -> Result<(), Failed> {
    if ok { Ok(()) } else { Err(message().into()) }
}

fn every_real_type() -> Result<(), Failed> {
    let mut names: Vec<_> = vectors()?.iter().map(|v| v.name).collect();
    let mut wanted: Vec<_> = DType::ALL.iter().filter(|t| t.is_real()).map(|t| t.name()).collect();
    names.sort_unstable();
    wanted.sort_unstable();
    check(names == wanted, || format!("the file has {names:?}, greta reads {wanted:?}"))
}

/// The type's sizes and number are GGUF's, and its format agrees with itself.
fn constants(dtype: DType) -> Result<(), Failed> {
    let v = vectors_of(dtype)?;
    let (ours, theirs) = ((dtype.block_len(), dtype.block_bytes()), (v.block_len, v.block_bytes));
    check(ours == theirs, || format!("(values, bytes) of a block: {ours:?}, in gguf {theirs:?}"))?;
    check(dtype.ggml_id() == Some(v.ggml_id), || format!("number {:?}, in gguf {}", dtype.ggml_id(), v.ggml_id))?;
    check(quant::format(dtype).is_some() == dtype.is_quantized(), || {
        "quantised types have a format, plain ones none".into()
    })?;
    let Some(f) = quant::format(dtype) else { return Ok(()) };
    check(f.dtype == dtype, || format!("its format is that of {}", f.dtype))?;
    check(f.sub == 16 || f.sub == 32, || format!("{} values share a scale", f.sub))?;
    check(f.offset == 0 || (f.offset == 1 << (f.bits - 1) && !f.has_min), || format!("offset {}", f.offset))?;
    check(f.f16_at.len() == 1 + usize::from(f.has_min), || format!("f16 scales at {:?}", f.f16_at))?;
    // The parts keep their promises on any bytes: codes fit their bits, unused entries are zero.
    for (n, block) in v.blocks.chunks_exact(v.block_bytes).enumerate() {
        let p = f.parts(block);
        let used = v.block_len / f.sub;
        let fits = p.codes[..v.block_len].iter().all(|&code| u32::from(code) < 1 << f.bits);
        let unused = p.codes[v.block_len..].iter().all(|&c| c == 0)
            && p.scales[used..].iter().all(|&s| s == 0)
            && p.mins[used..].iter().all(|&m| m == 0)
            && (f.has_min || (p.dmin == 0.0 && p.mins == [0; 16]));
        check(fits && unused, || format!("parts of block {n}: {p:?}"))?;
    }
    Ok(())
}

/// Every value is the reference's, to the bit, by the row and one by one.
fn dequantize(dtype: DType) -> Result<(), Failed> {
    let v = vectors_of(dtype)?;
    let mut values = vec![f32::NAN; v.expected.len()];
    quant::dequantize_row(dtype, v.blocks, &mut values);
    let same = |path: &str, i: usize, got: f32| {
        let want = v.expected[i];
        check(got.to_bits() == want, || {
            let (block, element) = (i / v.block_len, i % v.block_len);
            let (bits, wanted) = (got.to_bits(), f32::from_bits(want));
            format!(
                "{path}: block {block}, element {element}: {got:e} ({bits:#010x}), expected {wanted:e} ({want:#010x})"
            )
        })
    };
    for (i, &value) in values.iter().enumerate() {
        same("dequantize_row", i, value)?;
    }
    if let Some(f) = quant::format(dtype) {
        for (n, block) in v.blocks.chunks_exact(v.block_bytes).enumerate() {
            let parts = f.parts(block);
            for i in 0..v.block_len {
                same("value", n * v.block_len + i, f.value(&parts, i))?;
            }
        }
    }
    Ok(())
}

/// Random weights are finite, centred, of the asked deviation, and reproducible; every code and scale sign turns up.
fn random(dtype: DType) -> Result<(), Failed> {
    const N: usize = 1 << 18;
    let bytes = dtype.row_bytes(N).ok_or("not whole blocks")?;
    for std in [2e-4f32, 0.02, 1.0, 1e4] {
        let draw = |seed| {
            let mut row = vec![0xff; bytes];
            quant::random_row(dtype, &mut Rng::new(seed), std, &mut row);
            row
        };
        let row = draw(7);
        check(row == draw(7), || "the same seed gave other bytes".into())?;
        check(row != draw(8), || "another seed gave the same bytes".into())?;
        check(quant::first_non_finite(dtype, &row).is_none(), || format!("std {std}: a scale is not finite"))?;
        let mut values = vec![f32::NAN; N];
        quant::dequantize_row(dtype, &row, &mut values);
        check(values.iter().all(|v| v.is_finite()), || format!("std {std}: a value is not finite"))?;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / N as f64;
        let deviation = (values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / N as f64).sqrt();
        let (off_centre, ratio) = (mean / f64::from(std), deviation / f64::from(std));
        check(off_centre.abs() < 0.02, || format!("std {std}: the mean is {off_centre:.4} of it"))?;
        check((ratio - 1.0).abs() < 0.15, || format!("std {std}: the deviation is {ratio:.3} of it"))?;
        if let Some(f) = quant::format(dtype) {
            let mut seen = [false; 256];
            for block in row.chunks_exact(dtype.block_bytes()) {
                f.parts(block).codes[..dtype.block_len()].iter().for_each(|&code| seen[usize::from(code)] = true);
            }
            let codes = seen.iter().filter(|&&s| s).count();
            // Q8_0 leaves out −128, as quantisers do.
            let wanted = if f.bits == 8 { 255 } else { 1 << f.bits };
            check(codes == wanted, || format!("{codes} codes turn up of {wanted}"))?;
        }
    }
    Ok(())
}

/// An infinity or a NaN in a value or in any scale of a block is found, and the first one is reported.
fn non_finite(dtype: DType) -> Result<(), Failed> {
    const BLOCKS: usize = 8;
    let size = dtype.block_bytes();
    let mut row = vec![0; BLOCKS * size];
    quant::random_row(dtype, &mut Rng::new(1), 0.02, &mut row);
    check(quant::first_non_finite(dtype, &row).is_none(), || "found in a finite row".into())?;
    let places: &[usize] = quant::format(dtype).map_or(&[0], |f| f.f16_at);
    let patterns: &[&[u8]] = match dtype {
        DType::F32 => &[&[0, 0, 0x80, 0x7f], &[0, 0, 0x80, 0xff], &[1, 0, 0x80, 0x7f]],
        DType::BF16 => &[&[0x80, 0x7f], &[0x80, 0xff], &[0x81, 0x7f]],
        _ => &[&[0, 0x7c], &[0, 0xfc], &[1, 0x7c]],
    };
    for &at in places {
        for pattern in patterns {
            let mut bad = row.clone();
            for block in [6, 3] {
                let start = block * size + at;
                bad[start..start + pattern.len()].copy_from_slice(pattern);
                let found = quant::first_non_finite(dtype, &bad);
                check(found == Some(block), || format!("{pattern:x?} in block {block} at byte {at}: {found:?}"))?;
            }
        }
    }
    Ok(())
}

/// The authors' generator, from state 1, 2, 3, 4.
fn rng_known_answer() -> Result<(), Failed> {
    let mut rng = Rng::from_state([1, 2, 3, 4]);
    let got: [u64; 10] = std::array::from_fn(|_| rng.next_u64());
    let want = [
        41943041,
        58720359,
        3588806011781223,
        3591011842654386,
        9228616714210784205,
        9973669472204895162,
        14011001112246962877,
        12406186145184390807,
        15849039046786891736,
        10450023813501588000,
    ];
    check(got == want, || format!("{got:?}"))
}

fn rng_distributions() -> Result<(), Failed> {
    const N: usize = 1 << 20;
    let mut rng = Rng::new(0);
    let (mut even, mut below, mut moments, mut tail) = (0.0, [0u32; 7], [0.0f64; 5], 0u32);
    for _ in 0..N {
        let u = rng.uniform();
        check((0.0..1.0).contains(&u), || format!("uniform gave {u}"))?;
        even += f64::from(u);
        below[rng.below(7) as usize] += 1;
        let x = f64::from(rng.normal());
        for (k, moment) in moments.iter_mut().enumerate() {
            *moment += x.powi(k as i32) / N as f64;
        }
        tail += u32::from(x.abs() > 3.5);
    }
    check((even / N as f64 - 0.5).abs() < 2e-3, || format!("uniform's mean is {}", even / N as f64))?;
    check(below.iter().all(|&n| n.abs_diff(N as u32 / 7) < 2500), || format!("below(7): {below:?}"))?;
    let [_, mean, square, cube, fourth] = moments;
    let normal = mean.abs() < 5e-3 && (square - 1.0).abs() < 1e-2 && cube.abs() < 2e-2 && (fourth - 3.0).abs() < 5e-2;
    check(normal, || format!("normal's moments are {moments:?}"))?;
    // 4.65e-4 of a normal distribution lies beyond 3.5, which only the ziggurat's tail can give.
    check((420..560).contains(&tail), || format!("{tail} of {N} normals lie beyond 3.5"))
}
