use super::*;

const CODECS: [Compression; 4] = [
    Compression::Gzip,
    Compression::Snappy,
    Compression::Lz4,
    Compression::Zstd,
];

fn compressed(codec: Compression, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    compress(codec, body, &mut out).expect("memory is enough");
    out
}

fn unbounded() -> BatchLimits {
    BatchLimits::consumer()
}

/// Half repetitive, half random.
fn sample(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(3);
    let byte = |at: usize| match at / 64 % 2 {
        0 => b'a',
        _ => rng.u8(..),
    };
    (0..len).map(byte).collect()
}

#[test]
fn every_codec_gives_back_what_it_got() {
    for codec in CODECS {
        for len in [0, 1, 100, 32 << 10, (64 << 10) + 1, 300_000] {
            let body = sample(len);
            let back = decompress(codec, &compressed(codec, &body), &unbounded());
            assert_eq!(back.as_ref(), Ok(&body), "{codec}, {len} bytes");
        }
    }
}

#[test]
fn codes_and_names_are_kafkas() {
    for (code, name) in ["none", "gzip", "snappy", "lz4", "zstd"]
        .into_iter()
        .enumerate()
    {
        let compression: Compression = name.parse().expect("a codec's name");
        assert_eq!(usize::from(compression.codec()), code);
        assert_eq!(
            Compression::from_codec(compression.codec()),
            Some(compression)
        );
    }
    assert_eq!(Compression::from_codec(5), None);
    assert!("brotli".parse::<Compression>().is_err());
}

/// `foobar\n` as snappy-java writes it, byte by byte from the framing's and snappy's formats.
#[test]
fn golden_snappy_in_javas_framing() {
    let golden = [
        0x82,
        b'S',
        b'N',
        b'A',
        b'P',
        b'P',
        b'Y',
        0, // magic
        0,
        0,
        0,
        1,
        0,
        0,
        0,
        1, // versions
        0,
        0,
        0,
        9, // block length
        7,
        6 << 2,
        b'f',
        b'o',
        b'o',
        b'b',
        b'a',
        b'r',
        b'\n', // length, literal of 7
    ];
    assert_eq!(compressed(Compression::Snappy, b"foobar\n"), golden);
    let bare = &golden[20..];
    for body in [&golden[..], bare] {
        let back = decompress(Compression::Snappy, body, &unbounded());
        assert_eq!(back.as_deref(), Ok(&b"foobar\n"[..]));
    }
}

/// The header that Kafka's Java client insists on: version 1, independent blocks, a right
/// header checksum (the second byte of the xxHash32 of FLG and BD).
#[test]
fn golden_lz4_frame_header() {
    let frame = compressed(Compression::Lz4, b"foobar\n");
    assert_eq!(frame[..7], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40, 0x82]);
    // Too short to shrink: a block stored as it is, then the end mark.
    assert_eq!(frame[7..11], [7, 0, 0, 0x80]);
    assert_eq!(frame[11..], *b"foobar\n\0\0\0\0");
}

#[test]
fn several_frames_in_a_row_are_one_body() {
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let row = [compressed(codec, b"one "), compressed(codec, b"two")].concat();
        let back = decompress(codec, &row, &unbounded());
        assert_eq!(back.as_deref(), Ok(&b"one two"[..]), "{codec}");
    }
}

#[test]
fn cut_streams_are_malformed_at_every_byte() {
    let body = sample(500);
    for codec in CODECS {
        let whole = compressed(codec, &body);
        for end in 1..whole.len() {
            let result = decompress(codec, &whole[..end], &unbounded());
            let short = result.as_ref().map_or(true, |back| *back != body);
            assert!(short, "{codec} cut at {end} of {}", whole.len());
        }
    }
}

#[test]
fn bombs_are_refused_by_ratio_and_by_size() {
    let zeros = vec![0; 4 << 20];
    for codec in [Compression::Gzip, Compression::Lz4, Compression::Zstd] {
        let bomb = compressed(codec, &zeros);
        let strict = BatchLimits {
            decompression_ratio_max: 50,
            ..BatchLimits::default()
        };
        let ratio = DecompressError::Ratio {
            compressed: bomb.len(),
            ratio: 50,
        };
        assert_eq!(decompress(codec, &bomb, &strict), Err(ratio), "{codec}");
    }
    for codec in CODECS {
        let bomb = compressed(codec, &zeros);
        let small = BatchLimits {
            decompressed_bytes_max: (4 << 20) - 1,
            ..BatchLimits::consumer()
        };
        let large = DecompressError::TooLarge {
            limit: (4 << 20) - 1,
        };
        assert_eq!(decompress(codec, &bomb, &small), Err(large), "{codec}");
        let exact = BatchLimits {
            decompressed_bytes_max: 4 << 20,
            ..BatchLimits::consumer()
        };
        assert_eq!(
            decompress(codec, &bomb, &exact).as_ref(),
            Ok(&zeros),
            "{codec}"
        );
    }
}

#[test]
fn small_batches_may_have_any_ratio() {
    let zeros = vec![0; 64 << 10];
    for codec in CODECS {
        let body = compressed(codec, &zeros);
        assert!(decompress(codec, &body, &BatchLimits::default()).is_ok());
    }
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    // Magic, a descriptor without content size, window 2^(10 + 21) = 2 GiB, an empty last block.
    let frame = |window: u8| [0x28, 0xb5, 0x2f, 0xfd, 0x00, window << 3, 1, 0, 0];
    let limits = BatchLimits::default();
    assert_eq!(
        decompress(Compression::Zstd, &frame(13), &limits),
        Ok(vec![])
    );
    for window in [14, 21] {
        let refused = decompress(Compression::Zstd, &frame(window), &limits);
        assert!(matches!(refused, Err(DecompressError::Malformed { .. })));
    }
}

#[test]
fn a_snappy_block_that_claims_gigabytes_takes_no_memory() {
    // A varint of 2^32 - 1 in front of almost nothing.
    let claim = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    let refused = decompress(Compression::Snappy, &claim, &unbounded());
    assert!(matches!(refused, Err(DecompressError::Malformed { .. })));
}

#[test]
fn a_legacy_lz4_frame_is_malformed() {
    // One block that holds `a`, which the library would read, with buffers of 8 MiB.
    let legacy = [0x02, 0x21, 0x4c, 0x18, 2, 0, 0, 0, 0x10, b'a'];
    let read = decompress(Compression::Lz4, &legacy, &unbounded());
    assert!(
        matches!(read, Err(DecompressError::Malformed { .. })),
        "{read:?}"
    );
}

#[test]
fn lies_in_the_snappy_framing_are_malformed() {
    let good = compressed(Compression::Snappy, b"foobar\n");
    let check = |bytes: &[u8]| {
        let refused = decompress(Compression::Snappy, bytes, &unbounded());
        assert!(matches!(refused, Err(DecompressError::Malformed { .. })));
    };
    check(&good[..12]);
    check(&good[..18]);
    for length in [0_u32, 8, 10, u32::MAX] {
        let mut lie = good.clone();
        lie[16..20].copy_from_slice(&length.to_be_bytes());
        check(&lie);
    }
}

#[test]
fn garbage_is_malformed() {
    let mut rng = fastrand::Rng::with_seed(11);
    for codec in CODECS {
        for len in 1..200 {
            let garbage: Vec<u8> = (0..len).map(|_| rng.u8(..)).collect();
            // Whatever comes out of garbage, it is bounded; most of it is an error.
            if let Ok(back) = decompress(codec, &garbage, &BatchLimits::default()) {
                assert!(back.len() <= 64 << 10, "{codec}: {garbage:x?}");
            }
        }
    }
}
