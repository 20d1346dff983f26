//! Global memory and LDS without kernels: what is known, bounds, races, bank conflicts.

use crate::cpu::{Lanes, Stop};
use crate::fault::What;
use crate::lds::Lds;
use crate::memory::Memory;
use crate::view::View;

#[test]
fn bank_conflicts() {
    let banks = std::cell::RefCell::new(crate::banks::Banks::new());
    let of = |f: &dyn Fn(u32) -> u32, words| {
        let at = |offset| std::array::from_fn(|l| f(l as u32) + offset);
        let first = banks.borrow_mut().conflicts(0, &at(0), !0, words);
        assert_eq!(banks.borrow_mut().conflicts(0, &at(48), !0, words), first, "the same pattern elsewhere");
        first
    };
    assert_eq!(of(&|l| 4 * l, 1), 0);
    assert_eq!(of(&|_| 64, 1), 0, "one dword for all is a broadcast");
    assert_eq!(of(&|l| 8 * l, 1), 2, "every second bank: two dwords a bank in each half");
    assert_eq!(of(&|l| 128 * l, 1), 2 * 31);
    assert_eq!(of(&|l| 16 * l, 4), 0);
    assert_eq!(of(&|l| 32 * l, 4), 8);
}

#[test]
fn memory() {
    let m = Memory::new(4096);
    let a = m.alloc(100, "a").expect("fits");
    let b = m.alloc(100, "b").expect("fits");
    assert!(a.is_multiple_of(256) && b.is_multiple_of(256) && b > a + 100);
    assert!(m.alloc(4096, "c").is_err());
    let mut out = [0; 4];
    assert!(m.read(a, &mut out).is_err(), "nothing was written");
    m.write(a + 1, &[1, 2, 3, 4, 5]).expect("inside");
    m.read(a + 2, &mut out).expect("written");
    assert_eq!(out, [2, 3, 4, 5]);
    m.copy(b, a, 8).expect("inside");
    assert!(m.read(b, &mut out).is_err() && m.read(b + 1, &mut out).is_ok());
    m.fill(b, 9, 100).expect("inside");
    m.copy(b, a, 8).expect("inside");
    assert!(m.read(b, &mut out).is_err() && m.read(b + 8, &mut out).is_ok());
    assert!(m.write(a + 98, &[0; 4]).is_err());
    assert_eq!(m.used(), 200);
    m.free(a).expect("allocated");
    assert!(m.free(a).is_err() && m.write(a, &[0]).is_err());
    assert_eq!(m.used(), 100);
}

#[test]
fn lds_races() {
    use crate::lds::{Access, Span};
    // 80 bytes make blocks smaller than a wide access, which may not hide a race.
    for size in [80, 4096] {
        let mut lds = Lds::new(size, 3);
        let touch = |lds: &mut Lds, at: u32, bytes: u32, align: u32, wave, access| {
            lds.access(&Span::new([at; 64], !0, bytes), align, wave, access)
        };
        let races = |step: Result<(), Stop>, at: u64, by: u32, write: bool| {
            let Err(Stop::Fault(cause)) = step else { return false };
            let found = matches!(cause.what, What::Race { address, other, other_write }
                if address == at && other == by && other_write == write);
            found && cause.lane == Some(0)
        };
        // More barriers than epochs have numbers.
        for round in 0..600 {
            assert!(touch(&mut lds, 32, 16, 16, 0, Access::Write).is_ok(), "{round}");
            assert!(touch(&mut lds, 48, 1, 1, 1, Access::Write).is_ok(), "another byte of the same dword");
            assert!(touch(&mut lds, 49, 1, 1, 2, Access::Write).is_ok());
            assert!(touch(&mut lds, 32, 8, 4, 0, Access::Read).is_ok(), "its own");
            assert!(touch(&mut lds, 52, 12, 4, 1, Access::Read).is_ok());
            assert!(touch(&mut lds, 52, 12, 4, 2, Access::Read).is_ok(), "reads don't race");
            assert!(touch(&mut lds, 68, 4, 4, 1, Access::Atomic).is_ok());
            assert!(touch(&mut lds, 68, 4, 4, 2, Access::Atomic).is_ok(), "nor do atomics");
            assert!(races(touch(&mut lds, 44, 4, 4, 1, Access::Read), 44, 0, true));
            assert!(races(touch(&mut lds, 48, 4, 4, 2, Access::Read), 48, 1, true));
            assert!(races(touch(&mut lds, 60, 8, 4, 0, Access::Write), 60, 1, false));
            assert!(races(touch(&mut lds, 64, 8, 8, 0, Access::Read), 68, 1, true));
            lds.barrier();
        }
        assert!(
            touch(&mut lds, size, 4, 4, 0, Access::Read).is_err() && touch(&mut lds, 2, 4, 4, 0, Access::Read).is_err()
        );
    }
}

#[test]
fn loads_of_64_lanes() {
    let m = Memory::new(4096);
    let a = m.alloc(1027, "a").expect("fits");
    let bytes: Vec<u8> = (0..1027u32).map(|i| (i * 7) as u8).collect();
    m.write(a, &bytes[..1000]).expect("inside");
    let view = || View::of(&m, [], &[]).expect("all of it");
    assert!(!view().find(a, 1).expect("there").1);
    // The last bytes come piece by piece: a launch sees that all are there.
    m.write(a + 1000, &bytes[1000..1020]).expect("inside");
    (1020..1027).for_each(|i| m.write(a + i as u64, &bytes[i..=i]).expect("inside"));
    let view = view();
    let (region, whole) = view.find(a, 1027).expect("there");
    assert!(whole && region.is_whole());
    for (first, step) in [(0, 16), (3, 16), (2, 8), (4, 4), (1011, 0), (8, 8)] {
        let off: [u64; 64] = std::array::from_fn(|l| first + step * l as u64);
        let mut out = [Lanes::ZERO; 4];
        assert!(region.load_lanes(&off, 16, &mut out));
        for (w, reg) in out.iter().enumerate() {
            for (l, x) in reg.0.iter().enumerate() {
                let at = off[l] as usize + 4 * w;
                let want = bytes[at..at + 4].first_chunk().map(|b| u32::from_le_bytes(*b));
                assert_eq!(Some(*x), want, "lane {l}, word {w} from {first} by {step}");
            }
        }
    }
    assert!(!region.load_lanes(&[1012; 64], 16, &mut [Lanes::ZERO; 4]), "past the end");
}
