-- What all scripts begin with: the names of the keys, the arguments, and validation.
--
-- Arguments arrive as one flat list; `take` and `count` read it from front to back. Byte strings
-- stay as they are (Lua strings hold any bytes). A version is 8 bytes, big-endian, everywhere.

local ORDER, ENTRIES, COUNTERS, IDENTITIES, LEASES = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local ABSENT = string.rep('\0', 8)
local NUMBER = ''      -- the field of ENTRIES that holds the commit number: no key is empty
local CHUNK = 1000     -- arguments to one call: unpack has a limit of some 8000
local REPORTED = 20    -- offending keys named in a conflict

-- A number as 8 bytes, and back. Commit numbers are below 2^53, which a double holds exactly.
local function pack(number)
  return struct.pack('>I4I4', math.floor(number / 4294967296), number % 4294967296)
end

local function unpack_number(packed)
  local high, low = struct.unpack('>I4I4', packed)
  return high * 4294967296 + low
end

local at = 0

local function take()
  at = at + 1
  return ARGV[at]
end

local function count()
  at = at + 1
  return tonumber(ARGV[at])
end

-- The server's clock, in microseconds.
local function clock()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

-- What is stored under list[first .. last]; false for a missing key.
local function fetch(list, first, last)
  if last < first then
    return {}
  end
  if last - first < CHUNK then
    return redis.call('HMGET', ENTRIES, unpack(list, first, last))
  end
  local all = {}
  for from = first, last, CHUNK do
    local found = redis.call('HMGET', ENTRIES, unpack(list, from, math.min(from + CHUNK - 1, last)))
    for n = 1, #found do
      all[#all + 1] = found[n]
    end
  end
  return all
end

-- The members of the key order and the fields of the entries must come in pairs: they would not if
-- the server had evicted one of the two.
local function is_whole()
  return redis.call('ZCARD', ORDER) == math.max(redis.call('HLEN', ENTRIES) - 1, 0)
end

local function damaged()
  return redis.error_reply('ROMEDAMAGED entries and their order differ')
end

-- Reads leases (name, fencing number) from the arguments; returns an error if one of them is not held.
local function lost_lease()
  local lost
  for _ = 1, count() do
    local name, fencing = take(), count()
    local stored = redis.call('HGET', LEASES, name)
    local record = stored and cmsgpack.unpack(stored)
    if not record or record[2] ~= fencing or record[3] <= clock() then
      lost = lost or redis.error_reply('ROMELOST ' .. name)
    end
  end
  return lost
end

-- Reads a read set from the arguments; returns the keys (and starts of ranges) that differ from it.
local function changed()
  local different = {}
  local function note(key)
    if #different < REPORTED then
      different[#different + 1] = key
    end
  end

  local keys = count()
  local versions = take()
  local found = fetch(ARGV, at + 1, at + keys)
  for n = 1, keys do
    local now = found[n] and string.sub(found[n], 1, 8) or ABSENT
    local key = take()
    if now ~= string.sub(versions, 8 * n - 7, 8 * n) then
      note(key)
    end
  end

  keys = count()
  local there = take()
  for n = 1, keys do
    local key = take()
    if redis.call('HEXISTS', ENTRIES, key) ~= tonumber(string.sub(there, n, n)) then
      note(key)
    end
  end

  for _ = 1, count() do
    local start, stop, size, digest = take(), take(), count(), take()
    found = redis.call('ZRANGEBYLEX', ORDER, '[' .. start, '(' .. stop, 'LIMIT', 0, size + 1)
    if #found ~= size then
      note(start)
    elseif size > 0 then
      local pieces = {}
      local stored = fetch(found, 1, size)
      for n = 1, size do
        local version = stored[n] and string.sub(stored[n], 1, 8) or ABSENT
        pieces[n] = #found[n] .. ':' .. found[n] .. version
      end
      if redis.sha1hex(table.concat(pieces)) ~= digest then
        note(start)
      end
    end
  end
  return different
end
