//! NumPy's array files: format 1.0 to 3.0, C order, little-endian (NEP 1).

/// An array: sizes, slowest first, and its values.
#[derive(Debug, PartialEq)]
pub(super) struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f64>,
}

/// Reads an array; the error says what is wrong with the file.
pub(super) fn parse(bytes: &[u8]) -> Result<Array, String> {
    let cut = || "is truncated within its header".to_string();
    if !bytes.starts_with(b"\x93NUMPY") {
        return Err("is no .npy file: it does not begin with \\x93NUMPY".into());
    }
    let &[major, minor] = bytes.get(6..8).and_then(|v| v.first_chunk()).ok_or_else(cut)?;
    let (start, len) = match major {
        1 => bytes.get(8..10).and_then(|b| b.first_chunk()).map(|&b| (10, usize::from(u16::from_le_bytes(b)))),
        2 | 3 => bytes.get(8..12).and_then(|b| b.first_chunk()).map(|&b| (12, u32::from_le_bytes(b) as usize)),
        _ => return Err(format!("is format {major}.{minor}; 1.0, 2.0 and 3.0 are known")),
    }
    .ok_or_else(cut)?;
    let header = bytes.get(start..).and_then(|b| b.get(..len)).ok_or_else(cut)?;
    let header = std::str::from_utf8(header).map_err(|_| "has a header that is no text".to_string())?;
    let (descr, shape) = facts(header)?;
    let data = &bytes[start + len..];
    let n = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).ok_or("has a shape no memory holds")?;
    let values = |size: usize| -> Result<std::slice::ChunksExact<'_, u8>, String> {
        match n.checked_mul(size) {
            Some(want) if want == data.len() => Ok(data.chunks_exact(size)),
            Some(want) if data.len() < want => {
                Err(format!("is truncated: shape {shape:?} of {descr} takes {want} bytes, {} are there", data.len()))
            }
            _ => Err(format!("has {} bytes of data, more than shape {shape:?} of {descr} takes", data.len())),
        }
    };
    let values = decode(&descr, values)?;
    Ok(Array { shape, values })
}

type Chunks<'a> = std::slice::ChunksExact<'a, u8>;

fn decode<'a>(descr: &str, of: impl Fn(usize) -> Result<Chunks<'a>, String>) -> Result<Vec<f64>, String> {
    fn bytes<const N: usize>(c: &[u8]) -> [u8; N] {
        let mut out = [0; N];
        out.copy_from_slice(c);
        out
    }
    Ok(match descr {
        "<f4" => of(4)?.map(|c| f64::from(f32::from_le_bytes(bytes(c)))).collect(),
        "<f8" => of(8)?.map(|c| f64::from_le_bytes(bytes(c))).collect(),
        "<f2" => of(2)?.map(|c| half::f16::from_le_bytes(bytes(c)).to_f64()).collect(),
        "<i4" => of(4)?.map(|c| f64::from(i32::from_le_bytes(bytes(c)))).collect(),
        "<i8" => of(8)?.map(|c| i64::from_le_bytes(bytes(c)) as f64).collect(),
        d if d.contains('O') => return Err("holds Python objects; save a plain array of float32".into()),
        d if d.starts_with('>') => return Err(format!("is big-endian ({d}); save it as <f4")),
        d => return Err(format!("has elements of type {d}; <f2, <f4, <f8, <i4 and <i8 are known: save it as float32")),
    })
}

/// Element type and shape from the header, a Python dictionary such as
/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`.
fn facts(header: &str) -> Result<(String, Vec<usize>), String> {
    let value = |key: &str| {
        let at = [format!("'{key}'"), format!("\"{key}\"")].iter().find_map(|k| header.find(k).map(|i| i + k.len()));
        let rest = at.and_then(|i| header[i..].trim_start().strip_prefix(':'));
        rest.map(str::trim_start).ok_or_else(|| format!("has a header without `{key}`"))
    };
    match value("fortran_order")? {
        v if v.starts_with("True") => {
            return Err("is in Fortran order; save numpy.ascontiguousarray(x)".into());
        }
        v if v.starts_with("False") => {}
        _ => return Err("has a header whose `fortran_order` is neither True nor False".into()),
    }
    let descr = value("descr")?;
    let quote = descr.chars().next().filter(|c| ['\'', '"'].contains(c));
    let Some(quote) = quote else { return Err("holds records with several fields; save a plain array".into()) };
    let descr = descr[1..].split(quote).next().unwrap_or_default().to_string();
    let shape = value("shape")?;
    let inner = shape.strip_prefix('(').and_then(|s| s.split_once(')')).map(|(s, _)| s);
    let sizes = inner.ok_or("has a header whose `shape` is no tuple")?.split(',').map(str::trim);
    let sizes: Result<Vec<usize>, _> = sizes.filter(|s| !s.is_empty()).map(str::parse).collect();
    Ok((descr, sizes.map_err(|_| format!("has a shape that makes no sense: ({})", inner.unwrap_or_default()))?))
}
