-- Old versions: what was stored before it was replaced or deleted, for a while.
--
-- A snapshot whose reads no longer hold cannot move forward. If it does not write, it goes on in the past:
-- it is answered from the state that it is at, which is the newest one with all that was replaced
-- since put back. Every commit keeps what it replaces (an entry that is new replaces nothing, and costs
-- nothing):
--
--   PAST   a sorted set of names: a key, and the number of the commit that replaced what was there,
--          in the order of the keys, then of the numbers
--   OLD    a hash: name -> what had been stored; under SIZE, about how many bytes all of it takes
--   LOG    a list in the order of commits, what to forget first: a number, and {bytes, name, ...}
--
-- The commit number is an entry like any other here, under the key NUMBER: what replaced it first after
-- a version was the next commit, and if that says that it followed this very version, then the version
-- is a state that there was (and not one that a fail-over has taken back), and all that came after it
-- is kept, for what is forgotten is forgotten in order. A commit that is too large to be kept, or does
-- not want to be, begins with nothing.

local PAST, OLD, LOG = KEYS[6], KEYS[7], KEYS[8]
local SIZE = ''
local LAST = string.rep('\255', 8)
local PIECE = 100                     -- names that are forgotten together
local OVERHEAD = 300                  -- bytes that Redis takes for an old entry besides its texts
local MOST_KEYS = 10000               -- written by a commit that is kept
local MOST_BYTES = 4 * 1024 * 1024    -- replaced by a commit that is kept
local GREATEST = 32 * 1024 * 1024     -- bytes that all of it may take

-- Keys such that the order of `escaped(key) .. '\0\1' .. number` is that of keys, then of numbers.
local function escaped(key)
  return (string.gsub(key, '%z', '\0\255'))
end

local function name_of(key, stamp)
  return escaped(key) .. '\0\1' .. stamp
end

local function key_of(name)
  return (string.gsub(string.sub(name, 1, -11), '%z\255', '\0'))
end

-- Whether the version that something begins with is greater than this one.
local function is_newer(stored, version)
  return unpack_number(string.sub(stored, 1, 8)) > unpack_number(version)
end

-- a < b as bytes: Lua's own order is that of the server's locale.
local function before(a, b)
  for n = 1, math.min(#a, #b) do
    local x, y = string.byte(a, n), string.byte(b, n)
    if x ~= y then
      return x < y
    end
  end
  return #a < #b
end

-- The name under which a key was first replaced after a version; nil if it was not.
local function first_name(key, version)
  local after, last = '(' .. name_of(key, version), '[' .. name_of(key, LAST)
  return redis.call('ZRANGEBYLEX', PAST, after, last, 'LIMIT', 0, 1)[1]
end

-- What was there when it was first replaced after a version; false if it was not.
local function replaced(key, version)
  local name = first_name(key, version)
  return name and redis.call('HGET', OLD, name) or false
end

-- Whether the state at a version, which is not the newest one, can still be told.
local function is_kept(version)
  return replaced(NUMBER, version) == version
end

-- The value at a version, from the newest and from what was replaced first since then.
local function value_at(version, newest, old)
  if newest and not is_newer(newest, version) then
    return newest
  end
  return old and not is_newer(old, version) and old or false
end

-- As `fetch`, at a version.
local function fetch_at(version, list, first, last)
  local found = fetch(list, first, last)
  for n = 1, #found do
    if not found[n] or is_newer(found[n], version) then
      found[n] = value_at(version, false, replaced(list[first + n - 1], version))
    end
  end
  return found
end

-- The keys that were replaced after a version, in order, and the names under which they were first: those with
-- names between two bounds. One at a time, for a key may have been replaced very often.
local function replaced_between(from, to, version)
  local keys, names = {}, {}
  while true do
    local name = redis.call('ZRANGEBYLEX', PAST, from, to, 'LIMIT', 0, 1)[1]
    if not name then
      return keys, names
    end
    local key = key_of(name)
    if not is_newer(string.sub(name, -8), version) then
      name = first_name(key, version)
    end
    if name and key ~= NUMBER then
      keys[#keys + 1], names[key] = key, name
    end
    from = '(' .. name_of(key, LAST)
  end
end

-- As ZRANGEBYLEX (or ZREVRANGEBYLEX) and `fetch`, at a version: keys, and what was stored there.
local function scan_at(version, start, stop, limit, reverse)
  local found, values = {}, {}
  local size = (limit < 0 or limit > 1e9) and -1 or limit + PIECE
  local from, to = '[' .. start, '(' .. stop                          -- in ORDER
  local from_name, to_name = '[' .. escaped(start), '(' .. escaped(stop)  -- the same in PAST
  while true do
    local batch
    if reverse then
      batch = redis.call('ZREVRANGEBYLEX', ORDER, to, from, 'LIMIT', 0, size)
    else
      batch = redis.call('ZRANGEBYLEX', ORDER, from, to, 'LIMIT', 0, size)
    end
    local newest = fetch(batch, 1, #batch)
    local is_last = size < 0 or #batch < size
    local first_of, last_of = from_name, to_name
    if not is_last and reverse then
      first_of = '[' .. escaped(batch[#batch])
    elseif not is_last then
      last_of = '[' .. name_of(batch[#batch], LAST)
    end
    local gone, names = replaced_between(first_of, last_of, version)
    local n, m = 1, 1
    while batch[n] or gone[m] do
      if #found == limit then
        return found, values
      end
      local key, value = batch[n], newest[n]
      local old = gone[reverse and #gone + 1 - m or m]
      if m <= #gone and (not key or (reverse and before(key, old)) or (not reverse and before(old, key))) then
        key, value = old, false
      else
        n = n + 1
      end
      if key == old then
        m = m + 1
      end
      value = value_at(version, value, names[key] and redis.call('HGET', OLD, names[key]))
      if value then
        found[#found + 1], values[#values + 1] = key, value
      end
    end
    if is_last then
      return found, values
    end
    if reverse then
      to, to_name = '(' .. batch[#batch], '(' .. escaped(batch[#batch])
    else
      from, from_name = '(' .. batch[#batch], '(' .. name_of(batch[#batch], LAST)
    end
  end
end

-- What a commit is about to replace: {names without their numbers, what is stored}; false if it is too much.
local function found_before(keys)
  if #keys > MOST_KEYS then
    return false
  end
  local stored = fetch(keys, 1, #keys)
  local kept, values, bytes = {}, {}, 0
  for n = 1, #keys do
    if stored[n] then
      kept[#kept + 1], values[#values + 1] = keys[n], stored[n]
      bytes = bytes + #stored[n]
    end
  end
  return bytes <= MOST_BYTES and {kept, values}
end

-- Keep what a commit has replaced; returns in how many pieces.
local function remember(kept, number, stamp)
  if not kept then
    redis.call('UNLINK', PAST, OLD, LOG)
    return 0
  end
  local keys, values = kept[1], kept[2]
  local pieces, bytes = 0, 0
  local names, fields, members = {name_of(NUMBER, stamp)}, {}, {}
  fields[1], fields[2], members[1], members[2] = names[1], number, 0, names[1]
  local size = OVERHEAD
  for n = 1, #keys + 1 do
    if n > #keys or #names == PIECE then
      redis.call('HSET', OLD, unpack(fields))
      redis.call('ZADD', PAST, unpack(members))
      redis.call('RPUSH', LOG, stamp .. cmsgpack.pack({size, unpack(names)}))
      pieces, bytes = pieces + 1, bytes + size
      names, fields, members, size = {}, {}, {}, 0
    end
    if n <= #keys then
      local name = name_of(keys[n], stamp)
      names[#names + 1] = name
      fields[#fields + 1], fields[#fields + 2] = name, values[n]
      members[#members + 1], members[#members + 2] = 0, name
      size = size + OVERHEAD + 3 * #name + #values[n]
    end
  end
  redis.call('HINCRBY', OLD, SIZE, bytes)
  return pieces
end

-- Forget what was replaced up to a commit number, and what is beyond the greatest size: some pieces of it, and
-- more than came in, so that it takes no commit long.
local function forget(number, pieces)
  local size = tonumber(redis.call('HGET', OLD, SIZE) or '0')
  local forgotten = 0
  for _ = 1, pieces + 4 do
    local first = redis.call('LINDEX', LOG, 0)
    if not first or (unpack_number(string.sub(first, 1, 8)) > number and size - forgotten <= GREATEST) then
      break
    end
    local piece = cmsgpack.unpack(string.sub(first, 9))
    redis.call('HDEL', OLD, unpack(piece, 2))
    redis.call('ZREM', PAST, unpack(piece, 2))
    redis.call('LPOP', LOG)
    forgotten = forgotten + piece[1]
  end
  if forgotten > 0 then
    redis.call('HINCRBY', OLD, SIZE, -forgotten)
  end
end
