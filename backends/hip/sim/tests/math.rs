//! Division, square roots and the like as clang compiles them, against the host's.

mod support;

use support::{Bench, compile};

/// Operands where division is hard: all special values, powers at both ends of the range, and neighbours.
fn hard32() -> Vec<f32> {
    let mut bits: Vec<u32> = vec![0, 1, 2, 3, 0x7f_ffff, 0x80_0000, 0x80_0001, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000];
    bits.extend([
        0x3f80_0000,
        0x3f80_0001,
        0x3f7f_ffff,
        0x4040_0000,
        0x0040_0000,
        0x0012_3456,
        0x7e80_0000,
        0x7e12_3456,
    ]);
    bits.extend((1..254).step_by(11).map(|e| e << 23 | (e * 0x9e37) & 0x7f_ffff));
    bits.iter().flat_map(|b| [f32::from_bits(*b), f32::from_bits(b | 1 << 31)]).collect()
}

fn hard64() -> Vec<f64> {
    let mut bits: Vec<u64> =
        vec![0, 1, 3, (1 << 52) - 1, 1 << 52, (1 << 52) + 1, 0x7fef_ffff_ffff_ffff, 0x7ff0 << 48, 0x7ff8 << 48];
    bits.extend([0x3ff0 << 48, (0x3ff0 << 48) + 1, 0x4008 << 48, 0x0008_1234_5678_9abc, 0x7fd1_2345_6789_abcd]);
    bits.extend((1..2046u64).step_by(83).map(|e| e << 52 | e.wrapping_mul(0x9e37_79b9_7f4a) & ((1 << 52) - 1)));
    bits.iter().flat_map(|b| [f64::from_bits(*b), f64::from_bits(b | 1 << 63)]).collect()
}

fn pairs<T: Copy>(v: &[T]) -> (Vec<T>, Vec<T>) {
    v.iter().flat_map(|a| v.iter().map(|b| (*a, *b))).unzip()
}

fn grid(n: usize) -> u32 {
    n.div_ceil(256) as u32
}

#[test]
fn f32_division_and_sqrt() {
    let Some(p) = compile("math.hip") else { return };
    let (a, d) = pairs(&hard32());
    let n = a.len();
    let mut b = Bench::new();
    b.f32s("a", &a);
    b.f32s("b", &d);
    let (q, s) = (b.output("q", 4 * n), b.output("s", 4 * n));
    b.i32(n as i32);
    b.run(&p, "f32_math", grid(n), 256).unwrap_or_else(|f| panic!("{f}"));
    let same = |x: f32, y: f32| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    for (i, (q, s)) in b.read_f32(q, n).into_iter().zip(b.read_f32(s, n)).enumerate() {
        assert!(same(q, a[i] / d[i]), "{:e} / {:e}: {q:e}, not {:e}", a[i], d[i], a[i] / d[i]);
        assert!(same(s, a[i].sqrt()), "sqrt {:e}: {s:e}, not {:e}", a[i], a[i].sqrt());
    }
}

#[test]
fn f64_division_and_sqrt() {
    let Some(p) = compile("math.hip") else { return };
    let (a, d) = pairs(&hard64());
    let n = a.len();
    let mut b = Bench::new();
    b.input("a", &a, |x| x.to_le_bytes().into());
    b.input("b", &d, |x| x.to_le_bytes().into());
    let (q, s) = (b.output("q", 8 * n), b.output("s", 8 * n));
    b.i32(n as i32);
    b.run(&p, "f64_math", grid(n), 256).unwrap_or_else(|f| panic!("{f}"));
    let read = |addr| {
        let bytes: Vec<[u8; 8]> = b.bytes(addr, 8 * n).chunks_exact(8).map(|c| c.try_into().expect("8")).collect();
        bytes.into_iter().map(f64::from_le_bytes).collect::<Vec<_>>()
    };
    let same = |x: f64, y: f64| x.to_bits() == y.to_bits() || x.is_nan() && y.is_nan();
    for (i, (q, s)) in read(q).into_iter().zip(read(s)).enumerate() {
        assert!(same(q, a[i] / d[i]), "{:e} / {:e}: {q:e}, not {:e}", a[i], d[i], a[i] / d[i]);
        assert!(same(s, a[i].sqrt()), "sqrt {:e}: {s:e}, not {:e}", a[i], a[i].sqrt());
    }
}

#[test]
fn f16_arithmetic() {
    let Some(p) = compile("math.hip") else { return };
    let values: Vec<u16> =
        (0..0xffffu32).step_by(521).map(|x| x as u16).chain([0, 0x8000, 0x7c00, 0x3c00, 1]).collect();
    let (a, d) = pairs(&values);
    let n = a.len();
    let mut b = Bench::new();
    b.u16s("a", &a);
    b.u16s("b", &d);
    let (q, s, m) = (b.output("q", 2 * n), b.output("s", 2 * n), b.output("m", 2 * n));
    b.i32(n as i32);
    b.run(&p, "f16_math", grid(n), 256).unwrap_or_else(|f| panic!("{f}"));
    let (q, s, m) = (b.read_u16(q, n), b.read_u16(s, n), b.read_u16(m, n));
    let f = |x: u16| half::f16::from_bits(x).to_f64();
    let same = |x: u16, y: f64| x == half::f16::from_f64(y).to_bits() || y.is_nan() && f(x).is_nan();
    for i in 0..n {
        let (x, y) = (f(a[i]), f(d[i]));
        assert!(same(q[i], x / y), "{x} / {y}: {}", f(q[i]));
        assert!(same(s[i], x + y), "{x} + {y}: {}", f(s[i]));
        assert!(same(m[i], x * y), "{x} · {y}: {}", f(m[i]));
    }
}

#[test]
fn integer_division() {
    let Some(p) = compile("math.hip") else { return };
    let values =
        [1, 2, 3, 7, 64, 1000, 65535, 65537, 0x7fff_ffff, -1, -2, -3, -1000, i32::MIN + 1, 123_456_789, -987_654_321];
    let (a, d) = pairs(&values);
    let n = a.len();
    let mut b = Bench::new();
    b.i32s("a", &a);
    b.i32s("b", &d);
    let (q, r) = (b.output("q", 4 * n), b.output("r", 4 * n));
    b.i32(n as i32);
    b.run(&p, "int_math", grid(n), 256).unwrap_or_else(|f| panic!("{f}"));
    let (q, r) = (b.read_i32(q, n), b.read_i32(r, n));
    for i in 0..n {
        assert_eq!(q[i], a[i].wrapping_div(d[i]), "{} / {}", a[i], d[i]);
        assert_eq!(r[i] as u32, a[i] as u32 % d[i] as u32, "{} % {}", a[i], d[i]);
    }
    let wide = |x: i32| i64::from(x).wrapping_mul(0x1_2345_6789);
    let (a, d): (Vec<i64>, Vec<i64>) =
        (a.iter().map(|x| wide(*x)).collect(), d.iter().map(|x| i64::from(*x) << 7 | 1).collect());
    let mut b = Bench::new();
    b.input("a", &a, |x| x.to_le_bytes().into());
    b.input("b", &d, |x| x.to_le_bytes().into());
    let (q, r) = (b.output("q", 8 * n), b.output("r", 8 * n));
    b.i32(n as i32);
    b.run(&p, "long_math", grid(n), 256).unwrap_or_else(|f| panic!("{f}"));
    let read = |addr| {
        b.bytes(addr, 8 * n).chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().expect("8"))).collect::<Vec<_>>()
    };
    let (q, r) = (read(q), read(r));
    for i in 0..n {
        assert_eq!(q[i], a[i].wrapping_div(d[i]), "{} / {}", a[i], d[i]);
        let want = (a[i] as u64).wrapping_mul(d[i] as u64).wrapping_add(a[i] as u64 % d[i] as u64);
        assert_eq!(r[i] as u64, want, "{} % {}", a[i], d[i]);
    }
}

#[test]
fn functions() {
    let Some(p) = compile("math.hip") else { return };
    let a: Vec<f32> = (0..1000).map(|i| i as f32 * 0.173 - 86.0).chain([1e-40, 1e38, 0.5, 2.5, 3.5]).collect();
    let n = a.len();
    let mut b = Bench::new();
    b.f32s("a", &a);
    let out = [0; 3].map(|_| b.output("out", 4 * n));
    b.i32(n as i32);
    b.run(&p, "functions", grid(n), 256).unwrap_or_else(|f| panic!("{f}"));
    let [e, l, r] = out.map(|o| b.read_f32(o, n));
    let close = |x: f32, y: f64| {
        (f64::from(x) - y).abs() <= y.abs() * 4e-7 + 1e-40 || y.is_nan() && x.is_nan() || f64::from(x) == y
    };
    for i in 0..n {
        let x = f64::from(a[i]);
        assert!(close(e[i], x.exp()) || x.exp() > f64::from(f32::MAX), "exp {x}: {} {}", e[i], x.exp());
        assert!(close(l[i], x.ln()), "ln {x}: {} {}", l[i], x.ln());
        let want = a[i].round_ties_even() + a[i].floor() * a[i].trunc();
        assert_eq!(r[i].to_bits(), want.to_bits(), "rounding {x}");
    }
}

#[test]
fn hidden_arguments_tables_and_partial_waves() {
    let Some(p) = compile("math.hip") else { return };
    let mut b = Bench::new();
    b.i32s("x", &(0..200).collect::<Vec<_>>());
    let y = b.output("y", 800);
    b.i32(200);
    let counts = b.run(&p, "hidden", 3, 70).unwrap_or_else(|f| panic!("{f}"));
    assert_eq!(counts.waves, 6);
    let want: Vec<f32> = (0..200).map(|i| (1 << (i & 7)) as f32 + 210.0).collect();
    assert_eq!(b.read_f32(y, 200), want);
}
