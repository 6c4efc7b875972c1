-- Wireshark dissector for the packets of lossy-stream-sim, as `sim run --pcap FILE` writes them.
--
--   wireshark -X lua_script:docs/lossy-stream.lua FILE
--
-- or copy it to the folder "Personal Lua Plugins" (Help, About, Folders). The layouts are those of
-- sim/protocol: packet.py (media and packs), parity.py, feedback.py (control), handshake.py (the
-- start), packing.py. Runs with the Lua of Wireshark 3 and 4 (5.1 to 5.4).

local PORT = 5572
local proto = Proto("lossystream", "Lossy image stream")

local KINDS = { [0] = "media", "parity", "control", "pack" }
local INTERLEAVERS = { [0] = "raster", "checkerboard", "low_discrepancy", "random" }
local ENTROPIES = { [0] = "fixed", "static", "context" }
local PATCHES = { [0] = 16, 20, 24, 32 }
local CODES = { [0] = "reed_solomon", "xor", "raptorq", [255] = "none" }
local ORDERS = { [0] = "first", "hardest" }

local f = {
    version = ProtoField.uint8("lossystream.version", "Version", base.DEC, nil, 0xC0),
    kind = ProtoField.uint8("lossystream.kind", "Kind", base.DEC, KINDS, 0x30),
    log2_codebook = ProtoField.uint8(
        "lossystream.log2_codebook", "log2 of codebook size", base.DEC, nil, 0x0F),
    codebook = ProtoField.uint32("lossystream.codebook", "Codebook size"),
    sequence = ProtoField.uint16("lossystream.sequence", "Sequence number"),
    slice = ProtoField.uint8("lossystream.slice", "Slice"),
    slice_count = ProtoField.uint16("lossystream.slice_count", "Slices of the frame"),
    interleaver = ProtoField.uint32(
        "lossystream.interleaver", "Interleaver", base.DEC, INTERLEAVERS, 0xC0000000),
    entropy = ProtoField.uint32(
        "lossystream.entropy", "Entropy coding", base.DEC, ENTROPIES, 0x30000000),
    patch = ProtoField.uint32("lossystream.patch", "Pixels a token stands for, each way"),
    width = ProtoField.uint32("lossystream.width", "Width in pixels"),
    height = ProtoField.uint32("lossystream.height", "Height in pixels"),
    rows = ProtoField.uint32("lossystream.rows", "Rows of tokens"),
    columns = ProtoField.uint32("lossystream.columns", "Columns of tokens"),
    first_sequence = ProtoField.uint16(
        "lossystream.first_sequence", "Sequence number of slice 0"),
    frame = ProtoField.uint32("lossystream.frame", "Frame"),
    checksum = ProtoField.uint24("lossystream.checksum", "Checksum", base.HEX),
    checksum_good = ProtoField.bool("lossystream.checksum.good", "Checksum is right"),
    payload = ProtoField.bytes("lossystream.payload", "Tokens, entropy coded"),
    part = ProtoField.bytes("lossystream.part", "Tokens of one frame, entropy coded"),
    part_bytes = ProtoField.uint32("lossystream.part.bytes", "Bytes of the part"),

    code = ProtoField.uint8("lossystream.parity.code", "Erasure code", base.DEC, CODES, 0x0F),
    group = ProtoField.uint16("lossystream.parity.group", "First media packet of the group"),
    number = ProtoField.uint8("lossystream.parity.number", "Number in its block"),
    data = ProtoField.uint16("lossystream.parity.data", "Media packets of the block"),
    block = ProtoField.uint8("lossystream.parity.block", "Block of the group"),
    depth = ProtoField.uint16("lossystream.parity.depth", "Depth"),
    parity = ProtoField.uint16("lossystream.parity.parity", "Parity packets of the block"),
    listed = ProtoField.uint8("lossystream.parity.listed", "Bytes that list the members"),
    member = ProtoField.uint16("lossystream.parity.member", "Protects sequence number"),
    symbol = ProtoField.bytes("lossystream.parity.symbol", "Symbol of the erasure code"),

    missing = ProtoField.uint16("lossystream.control.missing", "Misses sequence number"),
    bits = ProtoField.bytes("lossystream.control.bits", "Bits for the numbers after the first"),

    magic = ProtoField.string("lossystream.start.magic", "Message"),
    fingerprint = ProtoField.bytes("lossystream.start.fingerprint", "Fingerprint of the model"),
    stream_id = ProtoField.uint32("lossystream.start.stream_id", "Stream id", base.HEX),
    key = ProtoField.uint32("lossystream.start.key", "Key of the checksums", base.HEX),
    fps = ProtoField.double("lossystream.start.fps", "Frames per second"),
    playout_delay = ProtoField.double(
        "lossystream.start.playout_delay", "Playout delay in seconds"),
    start_interleaver = ProtoField.uint8(
        "lossystream.start.interleaver", "Interleaver", base.DEC, INTERLEAVERS),
    start_entropy = ProtoField.uint8(
        "lossystream.start.entropy", "Entropy coding", base.DEC, ENTROPIES),
    mtu = ProtoField.uint16("lossystream.start.mtu", "Largest datagram in bytes"),
    frames = ProtoField.uint32("lossystream.start.frames", "Frames of the stream"),
    packing = ProtoField.uint8("lossystream.start.packing", "Frames that share packets"),
    passes = ProtoField.uint8("lossystream.start.passes", "Times that everything is sent"),
    fec_code = ProtoField.uint8("lossystream.start.fec.code", "Erasure code", base.DEC, CODES),
    fec_data = ProtoField.uint8("lossystream.start.fec.data", "Media packets of a block"),
    fec_parity = ProtoField.uint8("lossystream.start.fec.parity", "Parity packets of a block"),
    fec_depth = ProtoField.uint8("lossystream.start.fec.depth", "Depth"),
    fec_unequal = ProtoField.uint8("lossystream.start.fec.unequal", "By importance"),
    arq_retries = ProtoField.uint8("lossystream.start.arq.retries", "Retransmissions, at most"),
    arq_order = ProtoField.uint8(
        "lossystream.start.arq.order", "Order of requests", base.DEC, ORDERS),
    arq_delay = ProtoField.double("lossystream.start.arq.delay", "Delay back in seconds"),
    arq_wait = ProtoField.double("lossystream.start.arq.wait", "Wait in seconds"),
    arq_budget = ProtoField.double("lossystream.start.arq.budget", "Budget, share of packets"),
    arq_loss = ProtoField.double("lossystream.start.arq.loss", "Loss of requests"),
    refresh = ProtoField.uint16("lossystream.start.refresh", "Frames of a refresh cycle"),
    crc = ProtoField.uint32("lossystream.start.crc", "CRC-32", base.HEX),
    crc_good = ProtoField.bool("lossystream.start.crc.good", "CRC-32 is right"),
}
local fields = {}
for _, field in pairs(f) do fields[#fields + 1] = field end
proto.fields = fields

local bad_checksum = ProtoExpert.new(
    "lossystream.checksum.bad", "Checksum is wrong: damaged, or of another stream",
    expert.group.CHECKSUM, expert.severity.ERROR)
local malformed = ProtoExpert.new(
    "lossystream.malformed", "Malformed packet", expert.group.MALFORMED, expert.severity.ERROR)
proto.experts = { bad_checksum, malformed }

-- Exclusive or of 32 bits, whichever Lua this is.
local bxor
if bit32 then
    bxor = bit32.bxor
elseif bit then
    bxor = function(a, b) return bit.bxor(a, b) % 4294967296 end
else
    bxor = load("return function(a, b) return a ~ b end")()
end

local crc_table = {}
for n = 0, 255 do
    local c = n
    for _ = 1, 8 do
        c = c % 2 == 1 and bxor(math.floor(c / 2), 0xEDB88320) or math.floor(c / 2)
    end
    crc_table[n] = c
end

-- CRC-32 of a ByteArray, begun with an earlier one, as zlib's crc32(data, begun).
local function crc32(bytes, begun)
    local c = bxor(begun, 0xFFFFFFFF)
    for at = 0, bytes:len() - 1 do
        c = bxor(crc_table[bxor(c % 256, bytes:get_index(at))], math.floor(c / 256))
    end
    return bxor(c, 0xFFFFFFFF)
end

local stream = nil -- of the last start: key, packing, and frames by first sequence number

function proto.init() stream = nil end

-- The checksum: low 24 bits of the CRC-32 of head and payload, begun with the stream's key.
local function add_checksum(tree, tvb, head)
    local item = tree:add(f.checksum, tvb(head, 3))
    if not stream then return end
    local crc = crc32(tvb(0, head):bytes(), stream.key)
    if tvb:len() > head + 3 then crc = crc32(tvb(head + 3):bytes(), crc) end
    local good = crc % 16777216 == tvb(head, 3):uint()
    tree:add(f.checksum_good, tvb(head, 3), good):set_generated()
    if not good then item:add_proto_expert_info(bad_checksum) end
end

local function frames_of(first_sequence) return stream and stream.packs[first_sequence] or {} end

-- Parts of a pack: one for each of its frames that has this slice; the last needs no length.
local function add_parts(tree, tvb, slice, frames)
    local count = 0
    for _, frame in ipairs(frames) do
        if slice < stream.slices[frame] then count = count + 1 end
    end
    local at = 12
    for n = 1, count do
        local size, start = tvb:len() - at, at
        if n < count then
            local byte = tvb(at, 1):uint()
            size, at = byte % 128, at + 1
            if byte >= 128 then
                size, at = size + 128 * tvb(at, 1):uint(), at + 1
            end
            tree:add(f.part_bytes, tvb(start, at - start), size)
        end
        if size > 0 then tree:add(f.part, tvb(at, size)) end
        at = at + size
    end
end

local function media(tvb, pinfo, tree, kind)
    local word = tvb(5, 4):uint()
    local sequence, slice = tvb(1, 2):uint(), tvb(3, 1):uint()
    local width, height = math.floor(word / 16384) % 8192 + 1, word % 8192 + 1
    local patch = PATCHES[math.floor(word / 134217728) % 2 * 2 + math.floor(word / 8192) % 2]
    local log2 = tvb(0, 1):uint() % 16
    tree:add(f.log2_codebook, tvb(0, 1))
    tree:add(f.codebook, tvb(0, 1), 2 ^ log2):set_generated()
    tree:add(f.sequence, tvb(1, 2))
    tree:add(f.slice, tvb(3, 1))
    tree:add(f.slice_count, tvb(4, 1), tvb(4, 1):uint() + 1)
    tree:add(f.interleaver, tvb(5, 4))
    tree:add(f.entropy, tvb(5, 4))
    tree:add(f.patch, tvb(5, 4), patch)
    tree:add(f.width, tvb(5, 4), width)
    tree:add(f.height, tvb(5, 4), height)
    tree:add(f.rows, tvb(5, 4), math.ceil(height / patch)):set_generated()
    tree:add(f.columns, tvb(5, 4), math.ceil(width / patch)):set_generated()
    local first = (sequence - slice) % 65536
    tree:add(f.first_sequence, tvb(1, 3), first):set_generated()
    local frames = frames_of(first)
    for _, frame in ipairs(frames) do
        tree:add(f.frame, tvb(1, 3), frame):set_generated()
    end
    add_checksum(tree, tvb, 9)
    if tvb:len() > 12 then
        if kind == 3 and #frames > 0 then
            add_parts(tree, tvb, slice, frames)
        else
            tree:add(f.payload, tvb(12))
        end
    end
    pinfo.cols.info = string.format(
        "%s Seq=%d Slice=%d/%d %dx%d K=%d", KINDS[kind], sequence, slice, tvb(4, 1):uint() + 1,
        width, height, 2 ^ log2)
end

-- Calls found(n) for every bit that is set, n from 0 with the most significant first.
local function each_bit(bytes, found)
    for at = 0, bytes:len() - 1 do
        local byte = bytes:get_index(at)
        for place = 0, 7 do
            if math.floor(byte / 2 ^ (7 - place)) % 2 == 1 then found(8 * at + place) end
        end
    end
end

local function parity(tvb, pinfo, tree)
    local group, data = tvb(1, 2):uint(), tvb(4, 1):uint() + 1
    local block, depth, listed = tvb(5, 1):uint(), tvb(6, 1):uint() + 1, tvb(8, 1):uint()
    tree:add(f.code, tvb(0, 1))
    tree:add(f.group, tvb(1, 2))
    tree:add(f.number, tvb(3, 1))
    tree:add(f.data, tvb(4, 1), data)
    tree:add(f.block, tvb(5, 1))
    tree:add(f.depth, tvb(6, 1), depth)
    tree:add(f.parity, tvb(7, 1), tvb(7, 1):uint() + 1)
    tree:add(f.listed, tvb(8, 1))
    add_checksum(tree, tvb, 9)
    local function member(place, range)
        tree:add(f.member, range, (group + place) % 65536):set_generated()
    end
    if listed > 0 then
        local range = tvb(12, listed)
        each_bit(range:bytes(), function(place) member(place, range) end)
    else
        for n = 0, data - 1 do member(block + n * depth, tvb(1, 2)) end
    end
    if tvb:len() > 12 + listed then tree:add(f.symbol, tvb(12 + listed)) end
    pinfo.cols.info = string.format(
        "parity Group=%d Block=%d %d of %d for %d packets", group, block, tvb(3, 1):uint() + 1,
        tvb(7, 1):uint() + 1, data)
end

local function control(tvb, pinfo, tree)
    local first, count = tvb(1, 2):uint(), 1
    tree:add(f.sequence, tvb(1, 2))
    add_checksum(tree, tvb, 3)
    tree:add(f.missing, tvb(1, 2))
    if tvb:len() > 6 then
        local range = tvb(6)
        tree:add(f.bits, range)
        each_bit(range:bytes(), function(place)
            count = count + 1
            tree:add(f.missing, range, (first + 1 + place) % 65536):set_generated()
        end)
    end
    pinfo.cols.info = string.format("control Seq=%d, misses %d packets", first, count)
end

local function add_protection(tree, tvb)
    tree:add(f.packing, tvb(44, 1))
    tree:add(f.passes, tvb(45, 1))
    tree:add(f.fec_code, tvb(46, 1))
    tree:add(f.fec_data, tvb(47, 1))
    tree:add(f.fec_parity, tvb(48, 1))
    tree:add(f.fec_depth, tvb(49, 1))
    tree:add(f.fec_unequal, tvb(50, 1))
    tree:add(f.arq_retries, tvb(51, 1))
    tree:add(f.arq_order, tvb(52, 1))
    tree:add(f.arq_delay, tvb(53, 8))
    tree:add(f.arq_wait, tvb(61, 8))
    tree:add(f.arq_budget, tvb(69, 8))
    tree:add(f.arq_loss, tvb(77, 8))
end

local function start(tvb, pinfo, tree)
    local version = tvb(3, 1):uint() - 48 -- TSS1, TSS2 with protection, TSS3 with a refresh
    local protected, refreshed = version >= 2, version >= 3
    local head, frames = refreshed and 87 or protected and 85 or 44, tvb(40, 4):uint()
    local slices, patch = tvb(36, 1):uint() + 1, PATCHES[math.floor(tvb(37, 1):uint() / 16)]
    tree:add(f.magic, tvb(0, 4))
    tree:add(f.fingerprint, tvb(4, 8))
    tree:add(f.stream_id, tvb(12, 4))
    tree:add(f.fps, tvb(16, 8))
    tree:add(f.playout_delay, tvb(24, 8))
    tree:add(f.first_sequence, tvb(32, 2))
    tree:add(f.mtu, tvb(34, 2))
    tree:add(f.slice_count, tvb(36, 1), slices)
    tree:add(f.patch, tvb(37, 1), patch)
    tree:add(f.log2_codebook, tvb(37, 1))
    tree:add(f.codebook, tvb(37, 1), 2 ^ (tvb(37, 1):uint() % 16)):set_generated()
    tree:add(f.start_interleaver, tvb(38, 1))
    tree:add(f.start_entropy, tvb(39, 1))
    tree:add(f.frames, tvb(40, 4))
    if protected then add_protection(tree, tvb) end
    if refreshed then tree:add(f.refresh, tvb(85, 2)) end

    local key = crc32(tvb(4, 12):bytes(), 0)
    tree:add(f.key, tvb(4, 12), key):set_generated()
    local found = { key = key, packs = {}, slices = {} }
    local packing = protected and tvb(44, 1):uint() or 1
    local sequence, pack, most = tvb(32, 2):uint(), {}, 0
    for frame = 0, frames - 1 do
        local at = head + 4 * frame
        if at + 4 > tvb:len() then break end
        local width, height = tvb(at, 2):uint(), tvb(at + 2, 2):uint()
        tree:add(f.width, tvb(at, 2))
        tree:add(f.height, tvb(at + 2, 2))
        local tokens = math.ceil(width / patch) * math.ceil(height / patch)
        found.slices[frame] = math.min(slices, tokens)
        most = math.max(most, found.slices[frame])
        pack[#pack + 1] = frame
        if #pack == packing or frame == frames - 1 then
            found.packs[sequence] = pack -- in long streams numbers return: the last one counts
            sequence, pack, most = (sequence + most) % 65536, {}, 0
        end
    end
    local at = head + 4 * frames
    if at + 4 <= tvb:len() then
        tree:add(f.crc, tvb(at, 4))
        local good = crc32(tvb(0, at):bytes(), 0) == tvb(at, 4):uint()
        tree:add(f.crc_good, tvb(at, 4), good):set_generated()
    end
    stream = found
    pinfo.cols.info = string.format("start of a stream of %d frames", frames)
end

local function dissect(tvb, pinfo, tree)
    if tvb(0, 3):string() == "TSS" then return start(tvb, pinfo, tree) end
    local kind = math.floor(tvb(0, 1):uint() / 16) % 4
    tree:add(f.version, tvb(0, 1))
    tree:add(f.kind, tvb(0, 1))
    if kind == 1 then return parity(tvb, pinfo, tree) end
    if kind == 2 then return control(tvb, pinfo, tree) end
    return media(tvb, pinfo, tree, kind)
end

function proto.dissector(tvb, pinfo, root)
    pinfo.cols.protocol = "LossyStream"
    local tree = root:add(proto, tvb())
    -- damaged packets may say anything: what lies beyond their end is told as malformed
    local done = pcall(dissect, tvb, pinfo, tree)
    if not done then tree:add_proto_expert_info(malformed) end
    return tvb:len()
end

DissectorTable.get("udp.port"):add(PORT, proto)
