-- What both scripts begin with: the names of the keys, the arguments, and validation.
--
-- Arguments arrive as one flat list; `take` and `count` read it from front to back. Byte strings
-- stay as they are (Lua strings hold any bytes). A version is 8 bytes, big-endian, everywhere.

local ORDER, ENTRIES, COUNTERS, IDENTITIES = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local ABSENT = string.rep('\0', 8)
local NUMBER = ''      -- the field of ENTRIES that holds the commit number: no key is empty
local CHUNK = 1000     -- arguments to one call: unpack has a limit of some 8000
local REPORTED = 20    -- offending keys named in a conflict

local at = 0

local function take()
  at = at + 1
  return ARGV[at]
end

local function count()
  at = at + 1
  return tonumber(ARGV[at])
end

-- Calls visit(key, stored) for each of list[first .. last]; stored is false for a missing key.
local function each(list, first, last, visit)
  for from = first, last, CHUNK do
    local to = math.min(from + CHUNK - 1, last)
    local found = redis.call('HMGET', ENTRIES, unpack(list, from, to))
    for n = from, to do
      visit(list[n], found[n - from + 1])
    end
  end
end

-- The members of the key order and the fields of the entries must come in pairs: they would not if
-- the server had evicted one of the two.
local function check_whole()
  local entries = redis.call('HLEN', ENTRIES)
  if redis.call('ZCARD', ORDER) ~= math.max(entries - 1, 0) then
    return false
  end
  return true
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
  local position = 1
  each(ARGV, at + 1, at + keys, function(key, stored)
    local now = stored and string.sub(stored, 1, 8) or ABSENT
    if now ~= string.sub(versions, position, position + 7) then
      note(key)
    end
    position = position + 8
  end)
  at = at + keys

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
    local found = redis.call('ZRANGEBYLEX', ORDER, '[' .. start, '(' .. stop, 'LIMIT', 0, size + 1)
    if #found ~= size then
      note(start)
    elseif size > 0 then
      local pieces = {}
      each(found, 1, size, function(key, stored)
        local version = stored and string.sub(stored, 1, 8) or ABSENT
        pieces[#pieces + 1] = #key .. ':' .. key .. version
      end)
      if redis.sha1hex(table.concat(pieces)) ~= digest then
        note(start)
      end
    end
  end
  return different
end
