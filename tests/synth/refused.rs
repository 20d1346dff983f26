//! What is refused, and that nothing half-made is left behind.

use std::fs;
use std::path::Path;

use greta_models::gguf::Gguf;
use greta_models::synth::{Style, SynthError, SynthSpec, write_with_threads};

use super::{Outcome, make, preset};

pub(super) fn bad_specs() -> Outcome {
    let dir = tempfile::tempdir()?;
    type Break = fn(&mut SynthSpec);
    let cases: &[(&str, Break)] = &[
        ("layers is 0", |s| s.layers = 0),
        ("vocab is 0", |s| s.vocab = 0),
        ("head_dim is 0", |s| s.head_dim = Some(0)),
        ("dim is 100, and it must be a multiple of 32", |s| s.dim = 100),
        ("ffn is 510, and it must be a multiple of 32", |s| s.ffn = 510),
        ("4 heads cannot share 3 key/value heads", |s| s.kv_heads = 3),
        ("dim 256 does not divide evenly among 6 heads", |s| s.heads = 6),
        ("head_dim is 63, and it must be even", |s| s.head_dim = Some(63)),
        ("heads × head_dim is 24, and it must be a multiple of 32", |s| s.head_dim = Some(6)),
        ("vocab is 265, and this tokenizer needs at least 266", |s| s.vocab = 265),
        ("vocab is 258, and this tokenizer needs at least 259", |s| (s.vocab, s.style) = (258, Style::ChatMl)),
        ("layers is 4294967295, and the most", |s| s.layers = u32::MAX),
        ("dim is 4294967264, and the most", |s| s.dim = u32::MAX - 31),
        ("vocab is 4294967295, and the most", |s| s.vocab = u32::MAX),
        ("heads × head_dim is 1099511627776, and the most", |s| (s.heads, s.head_dim) = (1 << 20, Some(1 << 20))),
        ("std is 0, and it must be", |s| s.std = 0.0),
        ("std is NaN, and it must be", |s| s.std = f32::NAN),
        ("resid_scale is 0.001, and it must be", |s| s.resid_scale = 1e-3),
        ("rope_theta is inf, and it must be", |s| s.rope_theta = f32::INFINITY),
        ("rope_factor is -1, and it must be", |s| s.rope_factor = -1.0),
        ("eps is 0, and it must be", |s| s.eps = 0.0),
    ];
    for (message, damage) in cases {
        let mut spec = preset("tiny");
        damage(&mut spec);
        let error = make(&spec, &dir.path().join("m.gguf")).expect_err(message).to_string();
        assert!(error.starts_with(message), "{error:?} was expected to start with {message:?}");
    }
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    #[cfg(unix)]
    {
        let socket = dir.path().join("socket");
        let _held = std::os::unix::net::UnixListener::bind(&socket)?;
        let error = make(&preset("tiny"), &socket).expect_err("a socket").to_string();
        assert!(error.contains("it is a device, pipe or socket"), "{error:?}");
    }
    Ok(())
}

pub(super) fn cancelled() -> Outcome {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("m.gguf");
    let stop_after = |calls: u32| {
        let mut left = calls;
        write_with_threads(&preset("tiny"), &path, 3, &mut |_, _| {
            left -= 1;
            left > 0
        })
    };
    for calls in [1, 2, 10] {
        assert!(matches!(stop_after(calls), Err(SynthError::Cancelled)), "{calls}");
        assert_eq!(fs::read_dir(dir.path())?.count(), 0, "files left after {calls} calls");
    }
    fs::write(&path, "mine")?;
    assert!(matches!(stop_after(5), Err(SynthError::Cancelled)));
    assert_eq!(fs::read(&path)?, b"mine", "a cancelled run touched what was there");
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    make(&preset("tiny"), &path)?;
    Gguf::open(&path)?;
    assert_eq!(fs::read_dir(dir.path())?.count(), 1);
    Ok(())
}

pub(super) fn bad_targets() -> Outcome {
    let dir = tempfile::tempdir()?;
    let at = |path: &Path| make(&preset("tiny"), path);
    assert!(matches!(at(dir.path()), Err(SynthError::Target { .. })));
    assert!(matches!(at(&dir.path().join("..")), Err(SynthError::Target { .. })));
    assert!(matches!(at(&dir.path().join("none/m.gguf")), Err(SynthError::Io { .. })));
    assert_eq!(fs::read_dir(dir.path())?.count(), 0);
    Ok(())
}
