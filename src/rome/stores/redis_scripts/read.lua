-- Answers a Read in one round trip.
--
-- The first argument is the snapshot's version ('' for a fresh snapshot), the second says what to do
-- about it:
--
--   0   answer if the store is still at that version
--   1   the read set comes along: validate it, and answer
--   2   the same; if it no longer holds, answer from the past
--   3   answer from the past
--
-- The reply's first element tells what happened:
--
--   {0, number}                  the store has moved on: ask again, with the read set
--   {1, number, ...}             the answer, true at that number
--   {2, number, keys}            the store has moved on, and what was read before is no longer true
--   {3, number, ...}             the answer, true at the snapshot's version; the store is at that number
--
-- Everything runs at one instant, so that the answer and the validation hold at the same number.

local number = redis.call('HGET', ENTRIES, NUMBER) or ABSENT
local version = take()
local mode = take()
local past = false

if mode == '1' or mode == '2' then
  local different = changed()
  if #different > 0 then
    past = mode == '2' and is_kept(version)
    if not past then
      return {2, number, different}
    end
  end
elseif mode == '3' then
  past = is_kept(version)
  if not past then
    return {2, number, {}}
  end
elseif version ~= '' and version ~= number then
  return {0, number}
end

local function look(list, first, last)
  if past then
    return fetch_at(version, list, first, last)
  end
  return fetch(list, first, last)
end

local keys = count()
local values = look(ARGV, at + 1, at + keys)
at = at + keys

local presence = {}
for n = 1, count() do
  local key = take()
  if past then
    presence[n] = fetch_at(version, {key}, 1, 1)[1] and 1 or 0
  else
    presence[n] = redis.call('HEXISTS', ENTRIES, key)
  end
end

local scans = {}
for n = 1, count() do
  local start, stop, limit, how = take(), take(), take(), take()
  local reverse = how == 'r' or how == 'R'
  local found, stored
  if past then
    found, stored = scan_at(version, start, stop, tonumber(limit), reverse)
  elseif reverse then
    found = redis.call('ZREVRANGEBYLEX', ORDER, '(' .. stop, '[' .. start, 'LIMIT', 0, limit)
  else
    found = redis.call('ZRANGEBYLEX', ORDER, '[' .. start, '(' .. stop, 'LIMIT', 0, limit)
  end
  if #found == 0 and not is_whole() then
    return damaged()
  end
  stored = stored or fetch(found, 1, #found)
  scans[n] = {found, stored}
  if how == 'F' or how == 'R' then
    local targets = {}
    for m = 1, #stored do
      targets[m] = string.sub(stored[m] or '', 9)
    end
    scans[n][3] = look(targets, 1, #targets)
  end
end

local counters = {}
for n = 1, count() do
  counters[n] = redis.call('HGET', COUNTERS, take())
end

local allocated = {}
for n = 1, count() do
  allocated[n] = redis.call('HINCRBY', COUNTERS, take(), take())
end

return {past and 3 or 1, number, values, presence, scans, counters, allocated}
