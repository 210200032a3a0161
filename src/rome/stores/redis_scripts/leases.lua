-- The leases (rome.stores.leases has the rules): request, renew, release, require, held.
--
-- LEASES is a hash: name → record, a MessagePack array {owner, fencing, expires, waiter, end, ...}.
-- The field LAST holds {the last fencing number, the size at which the hash is swept}. Times are the
-- server's, in microseconds. A record is taken out before it is put back: taking out is allowed where
-- memory is full, and after a first write Redis refuses no more, so leases can still be renewed then.

local PLACE = 2 * 1000 * 1000
local FIRST_SWEEP = 64
local LAST = '\0'

local now = clock()

-- owner ('' for none), fencing, expires, waiters {{owner, end}, ...}, of those that are still alive
local function load_lease(name, stored)
  stored = stored or redis.call('HGET', LEASES, name)
  local record = {owner = '', fencing = 0, expires = 0, waiters = {}, fresh = not stored}
  if stored then
    local fields = cmsgpack.unpack(stored)
    if fields[3] > now then
      record.owner, record.fencing, record.expires = fields[1], fields[2], fields[3]
    end
    for n = 4, #fields, 2 do
      if fields[n + 1] > now then
        record.waiters[#record.waiters + 1] = {fields[n], fields[n + 1]}
      end
    end
  end
  return record
end

local function save(name, record)
  local fields = {record.owner, record.fencing, record.expires}
  for _, waiter in ipairs(record.waiters) do
    fields[#fields + 1], fields[#fields + 2] = waiter[1], waiter[2]
  end
  redis.call('HDEL', LEASES, name)
  if record.owner ~= '' or #record.waiters > 0 then
    redis.call('HSET', LEASES, name, cmsgpack.pack(fields))
  end
end

local function last()
  local stored = redis.call('HGET', LEASES, LAST)
  if stored then
    return unpack(cmsgpack.unpack(stored))
  end
  return 0, FIRST_SWEEP
end

local function each_record(visit)
  local all = redis.call('HGETALL', LEASES)
  for n = 1, #all, 2 do
    if all[n] ~= LAST then
      visit(all[n], load_lease(all[n], all[n + 1]))
    end
  end
end

local function sweep_if_due()
  local fencing, size = last()
  if redis.call('HLEN', LEASES) < size then
    return
  end
  each_record(function(name, record)
    if record.owner == '' and #record.waiters == 0 then
      redis.call('HDEL', LEASES, name)
    end
  end)
  redis.call('HSET', LEASES, LAST, cmsgpack.pack({fencing, 2 * redis.call('HLEN', LEASES) + FIRST_SWEEP}))
end

local function request(name, owner, time, queue)
  local record = load_lease(name)
  local position = #record.waiters
  for n, waiter in ipairs(record.waiters) do
    if waiter[1] == owner then
      position = n - 1
    end
  end
  if record.owner == owner or (record.owner == '' and position == 0) then
    if record.owner == '' then
      local fencing, size = last()
      record.owner, record.fencing = owner, math.max(fencing + 1, now)
      table.remove(record.waiters, 1)
      redis.call('HSET', LEASES, LAST, cmsgpack.pack({record.fencing, size}))
      if record.fresh then
        sweep_if_due()
      end
    end
    record.expires = now + time
    save(name, record)
    return {record.fencing, 0, 0}
  end
  if queue then
    local place = record.waiters[position + 1]
    if not place or place[2] - now < PLACE / 2 then
      record.waiters[position + 1] = {owner, now + PLACE}
      save(name, record)
    end
  end
  local ending = record.expires
  if ending == 0 then
    ending = record.waiters[1][2]
  end
  return {0, position, ending - now}
end

local what = take()
if what == 'request' then
  local name, owner, time, queue = take(), take(), count(), take()
  return request(name, owner, time, queue == '1')
end

if what == 'renew' then
  local renewed = {}
  for n = 1, count() do
    local name, owner, time = take(), take(), count()
    local record = load_lease(name)
    renewed[n] = 0
    if record.owner == owner then
      record.expires = now + time
      save(name, record)
      renewed[n] = 1
    end
  end
  return renewed
end

if what == 'release' then
  local name, owner = take(), take()
  local record = load_lease(name)
  local held = record.owner == owner
  if held then
    record.owner, record.fencing, record.expires = '', 0, 0
  end
  for n = #record.waiters, 1, -1 do
    if record.waiters[n][1] == owner then
      table.remove(record.waiters, n)
    end
  end
  save(name, record)
  return held and 1 or 0
end

if what == 'require' then
  local lost = lost_lease()
  return lost or redis.status_reply('OK')
end

local held = {}
each_record(function(name, record)
  if record.owner ~= '' then
    held[#held + 1] = {name, record.owner, record.fencing, record.expires - now, #record.waiters}
  end
end)
return held
