with versions as (
    select distinct gtin, sku, updated_at, received_at
    from {{ ref('stg_ecommerce__products') }}
    where gtin is not null
),

moments as (
    select distinct gtin, received_at as known_at
    from versions
),

-- A GTIN stands for the item that carried it last, by the versions received until then.
ranked as (
    select
        moments.gtin,
        moments.known_at,
        versions.sku,
        row_number() over (partition by moments.gtin, moments.known_at order by versions.updated_at desc, versions.sku) as version_rank
    from moments
    inner join versions
        on moments.gtin = versions.gtin and versions.received_at <= moments.known_at
),

changed as (
    select
        gtin,
        sku,
        known_at,
        lag(sku) over (partition by gtin order by known_at) as sku_before
    from ranked
    where version_rank = 1
),

final as (
    select
        gtin,
        sku,
        known_at,
        lead(known_at) over (partition by gtin order by known_at) as superseded_at
    from changed
    where sku_before is null or sku_before <> sku
)

select * from final
