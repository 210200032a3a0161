-- Validates and writes one commit; all of it or nothing.
--
-- Replies with the new commit number (8 bytes) and the one before it (8 bytes; left out when a
-- commit that was made already is asked after), or with the list of keys that differ.
--
-- Nothing may fail once something has been written, since Redis undoes nothing:
--   * memory: Redis looks at it when a script starts, and refuses the first command that would take
--     more; after a first write it refuses no more. So what takes memory comes first, and only a
--     commit that does nothing but delete begins with deleting, which is always allowed;
--   * read-only replicas and failing disks are refused at the first write as well;
--   * permissions are looked at first (where the server is new enough to be asked);
--   * counters are checked to stay 64-bit integers.
--
-- Each commit carries an identity. It is remembered for WINDOW microseconds, so that a client that
-- lost its connection can send the same commit again: it is done once. A conflict found on such a
-- second try is remembered too (as a negative number), so that the first, should it still be on its way,
-- cannot be done after all.

local WINDOW = 60 * 1000 * 1000

-- a < b for integers as text: a double cannot tell the greatest ones apart.
local function less(a, b)
  local x, y = tonumber(a), tonumber(b)
  if x ~= y then
    return x < y
  end
  local shorter = #a < #b or (#a == #b and a < b)
  return a ~= b and shorter == (x > 0)
end

local old = redis.call('HGET', ENTRIES, NUMBER) or ABSENT
local identity = take()
local known = redis.call('ZSCORE', IDENTITIES, identity)
if known then
  known = tonumber(known)
  if known > 0 then
    return pack(known)
  end
  return {''}
end

-- Sent again, a commit brings a number from before its first try: were identities as old as that
-- forgotten already, nobody could know whether it was done.
local since = take()
if since ~= '' and unpack_number(since) < unpack_number(old) - WINDOW then
  return redis.error_reply('ROMEFORGOTTEN')
end

local checking = take() == '1'
local keeping = count()
local lost = lost_lease()
local expected = take()
local arguments = count()

if not is_whole() then
  return damaged()
end
if lost then
  return lost
end
if arguments > 0 and expected ~= old then
  local different = changed()
  if #different > 0 then
    if since ~= '' then
      redis.call('ZADD', IDENTITIES, '-' .. string.format('%.0f', unpack_number(old) + 1), identity)
    end
    return different
  end
else
  at = at + arguments
end

local puts = count()
local first_put = at + 1
at = at + 2 * puts
local deletes = count()
local first_delete = at + 1
at = at + deletes
local adds = count()
local first_add = at + 1
at = at + 2 * adds
local floors = count()
local first_floor = at + 1

if checking and redis.acl_check_cmd then
  if not (redis.acl_check_cmd('HSET', ENTRIES, 'f', 'v') and redis.acl_check_cmd('HDEL', ENTRIES, 'f')
      and redis.acl_check_cmd('ZADD', ORDER, '0', 'm') and redis.acl_check_cmd('ZREM', ORDER, 'm')
      and redis.acl_check_cmd('HSET', COUNTERS, 'f', 'v')
      and redis.acl_check_cmd('HINCRBY', COUNTERS, 'f', '1')
      and redis.acl_check_cmd('ZADD', IDENTITIES, '0', 'm')
      and redis.acl_check_cmd('ZREMRANGEBYSCORE', IDENTITIES, '0', '0')
      and redis.acl_check_cmd('HSET', OLD, 'f', 'v') and redis.acl_check_cmd('HDEL', OLD, 'f')
      and redis.acl_check_cmd('ZADD', PAST, '0', 'm') and redis.acl_check_cmd('ZREM', PAST, 'm')
      and redis.acl_check_cmd('RPUSH', LOG, 'v') and redis.acl_check_cmd('LPOP', LOG)
      and redis.acl_check_cmd('LINDEX', LOG, '0') and redis.acl_check_cmd('UNLINK', PAST)) then
    return redis.error_reply(
      'NOPERM the user needs HSET, HDEL, HINCRBY, ZADD, ZREM, ZREMRANGEBYSCORE, RPUSH, LPOP, LINDEX and UNLINK'
      .. ' on the database')
  end
end
for n = first_add, first_add + 2 * adds - 1, 2 do
  local value = tonumber(redis.call('HGET', COUNTERS, ARGV[n]) or '0') + tonumber(ARGV[n + 1])
  if math.abs(value) >= 9223372036854775000 then
    return redis.error_reply('ROMELIMIT a counter would leave the range of 64-bit integers')
  end
end

local number = math.max(unpack_number(old) + 1, clock())
local stamp = pack(number)

local function put()
  for from = first_put, first_put + 2 * puts - 1, CHUNK do
    local to = math.min(from + CHUNK - 1, first_put + 2 * puts - 1)
    local fields, members = {}, {}
    for n = from, to, 2 do
      local size = #fields
      fields[size + 1], fields[size + 2] = ARGV[n], stamp .. ARGV[n + 1]
      members[size + 1], members[size + 2] = 0, ARGV[n]
    end
    if redis.call('HSET', ENTRIES, unpack(fields)) > 0 then
      redis.call('ZADD', ORDER, unpack(members))
    end
  end
end

local function delete()
  for from = first_delete, first_delete + deletes - 1, CHUNK do
    local to = math.min(from + CHUNK - 1, first_delete + deletes - 1)
    if redis.call('HDEL', ENTRIES, unpack(ARGV, from, to)) > 0 then
      redis.call('ZREM', ORDER, unpack(ARGV, from, to))
    end
  end
end

local written = {}
for n = first_put, first_put + 2 * puts - 1, 2 do
  written[#written + 1] = ARGV[n]
end
for n = first_delete, first_delete + deletes - 1 do
  written[#written + 1] = ARGV[n]
end
local kept = keeping > 0 and found_before(written)

put()
delete()
for n = first_add, first_add + 2 * adds - 1, 2 do
  redis.call('HINCRBY', COUNTERS, ARGV[n], ARGV[n + 1])
end
for n = first_floor, first_floor + 2 * floors - 1, 2 do
  local value = redis.call('HGET', COUNTERS, ARGV[n])
  if less(value or '0', ARGV[n + 1]) then
    redis.call('HSET', COUNTERS, ARGV[n], ARGV[n + 1])
  end
end
redis.call('HSET', ENTRIES, NUMBER, stamp)
forget(number - keeping, remember(kept, old, stamp))
redis.call('ZADD', IDENTITIES, string.format('%.0f', number), identity)
local forgotten = string.format('%.0f', number - WINDOW)
redis.call('ZREMRANGEBYSCORE', IDENTITIES, '-' .. forgotten, forgotten)
return stamp .. old
