//! The loops that AVX2 and AVX-VNNI share: vectors of 32 bytes.

/// Makes `int8` and `int4` for `$features` out of what the file defines: `start`,
/// `signed`, `dot` and `TILE_ROWS` for weights of 8 bits, `nibble_dot`,
/// `nibble_sum` and `mins_dot` for weights of 4 bits.
macro_rules! kernels {
    ($features:literal) => {
        #[target_feature(enable = $features)]
        pub(super) fn int8(blocks: &[Int8Block], rows: RowsView<'_>, sums: &mut [Sums]) {
            for (group_idx, block) in blocks.iter().enumerate() {
                let mut row_idx = 0;
                for sums in sums.chunks_mut(TILE_ROWS) {
                    let at = (rows, row_idx, group_idx);
                    for first in (0..PANEL_WIDTH / LANES).step_by(TILE_VECTORS) {
                        match sums.len() {
                            1 => int8_tile::<1>(block, at, first, sums),
                            2 => int8_tile::<2>(block, at, first, sums),
                            _ => int8_tile::<TILE_ROWS>(block, at, first, sums),
                        }
                    }
                    row_idx += TILE_ROWS;
                }
            }
        }

        #[target_feature(enable = $features)]
        pub(super) fn int4(blocks: &[Int4Block], rows: RowsView<'_>, sums: &mut [Sums]) {
            let mut unpacked = Unpacked::ZERO;
            for (block_idx, block) in blocks.iter().enumerate() {
                for half_idx in 0..2 {
                    unpacked.set(block, half_idx);
                    let mut row_idx = 0;
                    for sums in sums.chunks_mut(INT4_ROWS) {
                        let at = (rows, row_idx, 2 * block_idx + half_idx);
                        for first in (0..PANEL_WIDTH / LANES).step_by(INT4_VECTORS) {
                            match sums.len() {
                                1 => int4_tile::<1>(&unpacked, at, first, sums),
                                _ => int4_tile::<INT4_ROWS>(&unpacked, at, first, sums),
                            }
                        }
                        row_idx += INT4_ROWS;
                    }
                }
            }
        }

        /// `TILE_VECTORS` vectors from `first` on of `ROWS` rows.
        #[inline]
        #[target_feature(enable = $features)]
        fn int8_tile<const ROWS: usize>(
            block: &Int8Block,
            (rows, row_idx, group_idx): (RowsView<'_>, usize, usize),
            first: usize,
            sums: &mut [Sums],
        ) {
            let rows: [&RowGroup; ROWS] =
                std::array::from_fn(|row| rows.group(row_idx + row, group_idx));
            let sums = sums
                .first_chunk_mut::<ROWS>()
                .expect("the tile has a sum for each row");
            let mut dots = [[_mm256_setzero_si256(); TILE_VECTORS]; ROWS];
            for row in 0..ROWS {
                dots[row] = [start(rows[row]); TILE_VECTORS];
            }
            for (quad_idx, weights) in block.weights.iter().enumerate() {
                let quads: [__m256i; ROWS] =
                    std::array::from_fn(|row| _mm256_set1_epi32(rows[row].quads[quad_idx]));
                for vector in 0..TILE_VECTORS {
                    let weights = prepare(bytes(weights, first + vector));
                    for row in 0..ROWS {
                        dots[row][vector] = dot(dots[row][vector], weights, quads[row]);
                    }
                }
            }
            for vector in 0..TILE_VECTORS {
                let scales = floats(&block.scales, first + vector);
                for row in 0..ROWS {
                    let scale = _mm256_mul_ps(scales, _mm256_set1_ps(rows[row].scale));
                    let dot = _mm256_cvtepi32_ps(dots[row][vector]);
                    let sum = floats(&sums[row].0, first + vector);
                    let sum = _mm256_fmadd_ps(dot, scale, sum);
                    store(sum, &mut sums[row].0, first + vector);
                }
            }
        }

        /// `INT4_VECTORS` vectors from `first` on of `ROWS` rows.
        #[inline]
        #[target_feature(enable = $features)]
        fn int4_tile<const ROWS: usize>(
            weights: &Unpacked,
            (rows, row_idx, group_idx): (RowsView<'_>, usize, usize),
            first: usize,
            sums: &mut [Sums],
        ) {
            let rows: [&RowGroup; ROWS] =
                std::array::from_fn(|row| rows.group(row_idx + row, group_idx));
            let sums = sums
                .first_chunk_mut::<ROWS>()
                .expect("the tile has a sum for each row");
            let mut scaled = [[_mm256_setzero_ps(); INT4_VECTORS]; ROWS];
            for sub in 0..SUBS {
                let mut dots = [[_mm256_setzero_si256(); INT4_VECTORS]; ROWS];
                for quad_idx in 0..SUB_QUADS {
                    let quads: [__m256i; ROWS] = std::array::from_fn(|row| {
                        _mm256_set1_epi32(rows[row].quads[sub * SUB_QUADS + quad_idx])
                    });
                    for vector in 0..INT4_VECTORS {
                        let nibbles = bytes(&weights.weights[sub][quad_idx], first + vector);
                        for row in 0..ROWS {
                            dots[row][vector] = nibble_dot(dots[row][vector], nibbles, quads[row]);
                        }
                    }
                }
                for vector in 0..INT4_VECTORS {
                    let scales = floats(&weights.scales[sub], first + vector);
                    for row in 0..ROWS {
                        let dot = _mm256_cvtepi32_ps(nibble_sum(dots[row][vector]));
                        scaled[row][vector] = _mm256_fmadd_ps(dot, scales, scaled[row][vector]);
                    }
                }
            }
            for vector in 0..INT4_VECTORS {
                let mins = bytes(&weights.mins, first + vector);
                let d = floats(&weights.d, first + vector);
                let d_min = floats(&weights.d_min, first + vector);
                for row in 0..ROWS {
                    let high = mins_dot(mins, _mm256_set1_epi32(rows[row].sums_high));
                    let low = mins_dot(mins, _mm256_set1_epi32(rows[row].sums_low));
                    let minimum = _mm256_add_epi32(_mm256_slli_epi32::<8>(high), low);
                    let value = _mm256_mul_ps(d, scaled[row][vector]);
                    let value = _mm256_fnmadd_ps(d_min, _mm256_cvtepi32_ps(minimum), value);
                    let sum = floats(&sums[row].0, first + vector);
                    let sum = _mm256_fmadd_ps(value, _mm256_set1_ps(rows[row].scale), sum);
                    store(sum, &mut sums[row].0, first + vector);
                }
            }
        }

        /// Vector `vector` of a panel's quads.
        #[inline]
        #[target_feature(enable = $features)]
        fn bytes(from: &QuadVectors, vector: usize) -> __m256i {
            let from = from.as_flattened().as_chunks::<VECTOR_BYTES>().0[vector];
            // SAFETY: 32 bytes, which any bits are a value of.
            unsafe { transmute::<[u8; VECTOR_BYTES], __m256i>(from) }
        }

        /// Vector `vector` of a panel's numbers.
        #[inline]
        #[target_feature(enable = $features)]
        fn floats(from: &[f32; PANEL_WIDTH], vector: usize) -> __m256 {
            let from = from.as_chunks::<LANES>().0[vector];
            // SAFETY: 8 numbers of 4 bytes, which any bits are a value of.
            unsafe { transmute::<[f32; LANES], __m256>(from) }
        }

        #[inline]
        #[target_feature(enable = $features)]
        fn store(values: __m256, to: &mut [f32; PANEL_WIDTH], vector: usize) {
            // SAFETY: 8 numbers of 4 bytes, which any bits are a value of.
            let values = unsafe { transmute::<__m256, [f32; LANES]>(values) };
            to.as_chunks_mut::<LANES>().0[vector] = values;
        }
    };
}
pub(super) use kernels;

/// Lanes of a vector.
pub(super) const LANES: usize = 8;

/// Bytes of a vector.
pub(super) const VECTOR_BYTES: usize = 32;

/// Vectors of a tile of 8-bit weights.
pub(super) const TILE_VECTORS: usize = 4;

/// Rows of a tile of 4-bit weights.
pub(super) const INT4_ROWS: usize = 2;

/// Vectors of a tile of 4-bit weights: 2 x 2 sums of integers, as many of scaled
/// ones, and what they need, within 16 registers.
pub(super) const INT4_VECTORS: usize = 2;
