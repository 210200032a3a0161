-- Answers a Read in one round trip.
--
-- The first argument is the snapshot's version ('' for a fresh snapshot), the second says whether its
-- read set comes with it. The reply's first element tells what happened:
--
--   {0, number}                  the store has moved on: ask again, with the read set
--   {1, number, ...}             the answer, true at that number
--   {2, number, keys}            the store has moved on, and what was read before is no longer true
--
-- Everything runs at one instant, so that the answer and the validation hold at the same number.

local number = redis.call('HGET', ENTRIES, NUMBER) or ABSENT
local expected = take()
local validating = take() == '1'

if validating then
  local different = changed()
  if #different > 0 then
    return {2, number, different}
  end
elseif expected ~= '' and expected ~= number then
  return {0, number}
end

local keys = count()
local values = fetch(ARGV, at + 1, at + keys)
at = at + keys

local presence = {}
for n = 1, count() do
  presence[n] = redis.call('HEXISTS', ENTRIES, take())
end

local scans = {}
for n = 1, count() do
  local start, stop, limit, how = take(), take(), take(), take()
  local found
  if how == 'r' or how == 'R' then
    found = redis.call('ZREVRANGEBYLEX', ORDER, '(' .. stop, '[' .. start, 'LIMIT', 0, limit)
  else
    found = redis.call('ZRANGEBYLEX', ORDER, '[' .. start, '(' .. stop, 'LIMIT', 0, limit)
  end
  if #found == 0 and not is_whole() then
    return damaged()
  end
  local stored = fetch(found, 1, #found)
  scans[n] = {found, stored}
  if how == 'F' or how == 'R' then
    local targets = {}
    for m = 1, #stored do
      targets[m] = string.sub(stored[m] or '', 9)
    end
    scans[n][3] = fetch(targets, 1, #targets)
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

return {1, number, values, presence, scans, counters, allocated}
